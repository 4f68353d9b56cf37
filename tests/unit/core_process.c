/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who lives, and by which ids its threads are known.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/core/process.h"

enum { HANG_S = 60 };

static void *wait_for_ever(void *argument)
{
    int end = *(int *)argument;

    if (write(end, "x", 1) != 1)
        _exit(1);
    for (;;)
        pause();
    return NULL;
}

/* A process whose first thread has ended while another one lives. */
static int start_headless(void)
{
    int ends[2];
    char c;
    int pid;

    assert_int_equal(pipe(ends), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, wait_for_ever, &ends[1]))
            _exit(1);
        syscall(SYS_exit, 0); /* this thread alone */
    }
    assert_int_equal(read(ends[0], &c, 1), 1);
    close(ends[0]);
    close(ends[1]);
    return pid;
}

static char state_of(int pid)
{
    char path[64], text[256] = "";
    const char *at;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    file = fopen(path, "re");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof text, file));
    fclose(file);
    at = strrchr(text, ')');
    return at ? at[2] : '?';
}

static void a_process_lives_until_its_last_thread_ends(void **state)
{
    int pid = start_headless();
    uint64_t start = process_start(pid);

    (void)state;
    while (state_of(pid) != 'Z')
        usleep(1000);
    assert_true(start != 0);
    assert_true(process_lives(pid, start));
    assert_false(process_lives(pid, start + 1)); /* another one that has its pid */
    kill(pid, SIGKILL);
    while (process_lives(pid, start))
        usleep(1000); /* dead, though nobody has waited for it */
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_false(process_lives(pid, start));
    assert_int_equal(process_start(pid), 0);
}

static void own_threads_are_found(void **state)
{
    uint32_t own = (uint32_t)syscall(SYS_gettid);
    uint32_t ids[2] = {own, UINT32_MAX}, found[2] = {0};

    (void)state;
    assert_int_equal(process_find_threads(getpid(), ids, 2, found), 1);
    assert_int_equal(found[0], own);
    assert_int_equal(process_find_threads(getpid(), ids, 0, found), 0);
    assert_int_equal(process_find_threads(-1, ids, 2, found), 0);
}

/* The first process of a namespace calls itself 1. */
static void threads_of_another_namespace_are_found(void **state)
{
    uint32_t id = 1, found = 0;
    int pid = (int)syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, NULL, NULL, NULL, NULL);

    (void)state;
    if (pid < 0)
        skip(); /* not root */
    if (pid == 0)
        for (;;)
            pause();
    assert_int_equal(process_find_threads(pid, &id, 1, &found), 1);
    assert_int_equal(found, pid);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_process_lives_until_its_last_thread_ends),
        cmocka_unit_test(own_threads_are_found),
        cmocka_unit_test(threads_of_another_namespace_are_found),
    };

    alarm(HANG_S);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
