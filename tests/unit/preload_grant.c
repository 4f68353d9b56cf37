/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/qemu/clock.h"
#include "client/qemu/grant.h"
#include "protocol/client.h"

/* Each test is its own process: what was granted is kept, and silence is remembered. */

static int listener = -1;
static char path[64];

static void listen_here(int backlog)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(path, sizeof path, "/tmp/grant.%d", (int)getpid());
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (bind(listener, (const struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, backlog) < 0)
        _exit(10);
    setenv("POSTCOPY_SOCKET", path, 1);
}

static void *lend(void *argument)
{
    static ClientMessage message;
    static uint8_t scratch[CLIENT_PACKET_MAX];
    static ClientChannel channel;
    int client = accept(listener, NULL, NULL);
    int fd = open(argument, O_RDONLY);

    client_channel_init(&channel, client);
    if (client_channel_receive(&channel, &message) != 1 || message.type != CLIENT_DEVICE)
        _exit(11);
    client_message_send(client, &message, &fd, 1, scratch);
    close(fd);
    close(client);
    return NULL;
}

static void lent(const char *device)
{
    pthread_t thread;

    listen_here(1);
    pthread_create(&thread, NULL, lend, (void *)(uintptr_t)device);
    int fd = grant_device();
    pthread_join(thread, NULL);
    struct stat st;
    if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode)))
        _exit(12);
    if (fd >= 0 && (fd != grant_device() || fd != grant_known())) /* nobody answers any more */
        _exit(13);
    _exit(fd < 0 ? 1 : 0);
}

static void a_device(void)
{
    lent("/dev/null");
}

static void no_device(void)
{
    lent("/proc/self/stat");
}

static void silent(void)
{
    uint64_t begin = clock_ns(), first, second;

    listen_here(1);
    if (grant_device() >= 0)
        _exit(0);
    first = clock_ns() - begin;
    if (grant_device() >= 0)
        _exit(0);
    second = clock_ns() - begin - first;
    _exit(first > 900 * CLOCK_MS && first < 3000 * CLOCK_MS && second < 500 * CLOCK_MS ? 1 : 12);
}

static void crowded(void)
{
    uint64_t begin = clock_ns();

    listen_here(0);
    for (int i = 0; i < 4; i++) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
        (void)!connect(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0),
                       (const struct sockaddr *)&address, sizeof address);
    }
    if (grant_device() >= 0)
        _exit(0);
    _exit(clock_ns() - begin < 900 * CLOCK_MS ? 1 : 12);
}

static void absent(void)
{
    setenv("POSTCOPY_SOCKET", "/nonexistent/socket", 1);
    _exit(grant_device() < 0 ? 1 : 0);
}

/* 0: granted, 1: not; more: something else was wrong. */
static int outcome(void (*test)(void))
{
    pid_t child = fork();
    char left[64];
    int status;

    if (child == 0)
        test();
    assert_int_equal(waitpid(child, &status, 0), child);
    snprintf(left, sizeof left, "/tmp/grant.%d", (int)child);
    unlink(left);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void a_device_is_granted_and_kept(void **state)
{
    (void)state;
    assert_int_equal(outcome(a_device), 0);
}

static void only_a_device_is_taken(void **state)
{
    (void)state;
    assert_int_equal(outcome(no_device), 1);
}

static void a_silent_daemon_costs_a_second_once(void **state)
{
    (void)state;
    assert_int_equal(outcome(silent), 1);
}

static void a_daemon_that_accepts_nothing_costs_nothing(void **state)
{
    (void)state;
    assert_int_equal(outcome(crowded), 1);
    assert_int_equal(outcome(absent), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_is_granted_and_kept),
        cmocka_unit_test(only_a_device_is_taken),
        cmocka_unit_test(a_silent_daemon_costs_a_second_once),
        cmocka_unit_test(a_daemon_that_accepts_nothing_costs_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
