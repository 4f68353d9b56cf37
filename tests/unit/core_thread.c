/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A thread that sits in a system call is joined all the same.  A hang is what fails here: alarm().
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/core/thread.h"

enum { HANG_S = 60, TURNS = 20 };

typedef struct Reader {
    int fd;
    _Atomic bool stop;
    _Atomic unsigned interrupted;
} Reader;

static void *read_until_stopped(void *argument)
{
    Reader *reader = argument;
    struct uffd_msg message;

    while (!atomic_load(&reader->stop))
        if (read(reader->fd, &message, sizeof message) < 0 && errno == EINTR)
            atomic_fetch_add(&reader->interrupted, 1);
    return NULL;
}

static void join_reader(int fd)
{
    Reader reader = {.fd = fd};
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, read_until_stopped, &reader), 0);
    usleep(5000); /* most often it waits by then; if not, it will */
    atomic_store(&reader.stop, true);
    thread_join(thread);
    assert_true(atomic_load(&reader.interrupted) <= TURNS);
}

static void a_thread_that_reads_is_joined(void **state)
{
    int ends[2];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    for (int i = 0; i < TURNS; i++)
        join_reader(ends[0]);
    close(ends[0]);
    close(ends[1]);
}

/* As a client leaves it that takes O_NONBLOCK away. */
static void a_thread_that_waits_for_faults_is_joined(void **state)
{
    struct uffdio_api api = {.api = UFFD_API};
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

    (void)state;
    if (fd < 0)
        skip();
    assert_int_equal(ioctl(fd, UFFDIO_API, &api), 0);
    for (int i = 0; i < TURNS; i++)
        join_reader(fd);
    close(fd);
}

static void *end_at_once(void *argument)
{
    return argument;
}

static void a_thread_that_has_ended_is_joined(void **state)
{
    pthread_t thread;

    (void)state;
    for (int i = 0; i < TURNS; i++) {
        assert_int_equal(pthread_create(&thread, NULL, end_at_once, NULL), 0);
        thread_join(thread);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_that_reads_is_joined),
        cmocka_unit_test(a_thread_that_waits_for_faults_is_joined),
        cmocka_unit_test(a_thread_that_has_ended_is_joined),
    };

    alarm(HANG_S);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
