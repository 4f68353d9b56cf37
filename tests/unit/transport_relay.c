/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The relay: bytes both ways, ends of stream passed on, ended from outside.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/core/clock.h"
#include "daemon/transport/relay.h"

enum { BYTES = 3 << 20 };

static Relay relay;
static int left[2], right[2]; /* [0] the test's end, [1] the relay's */
static int result;
static pthread_t thread;

static void *run(void *argument)
{
    (void)argument;
    result = relay_run(&relay, left[1], right[1]);
    return NULL;
}

static void open_pair(int pair[2])
{
    struct timeval patience = {.tv_sec = 20};

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
}

static int set_up(void **state)
{
    (void)state;
    atomic_store(&relay.stop, false);
    atomic_store(&relay.bytes, 0);
    open_pair(left);
    open_pair(right);
    return pthread_create(&thread, NULL, run, NULL);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static int tear_down(void **state)
{
    (void)state;
    close_fd(&left[0]);
    close_fd(&left[1]);
    close_fd(&right[0]);
    close_fd(&right[1]);
    return 0;
}

static uint8_t byte_at(size_t at, uint8_t key)
{
    return (uint8_t)(at * 31 + (at >> 8) + key);
}

typedef struct Writing {
    int fd;
    uint8_t key;
} Writing;

static void *write_all(void *argument)
{
    Writing *writing = argument;
    uint8_t chunk[5003];

    for (size_t at = 0; at < BYTES;) {
        size_t n = BYTES - at < sizeof chunk ? BYTES - at : sizeof chunk;
        for (size_t i = 0; i < n; i++)
            chunk[i] = byte_at(at + i, writing->key);
        ssize_t sent = send(writing->fd, chunk, n, MSG_NOSIGNAL);
        if (sent <= 0)
            return NULL;
        at += (size_t)sent;
    }
    shutdown(writing->fd, SHUT_WR);
    return NULL;
}

static void assert_stream(int fd, uint8_t key)
{
    uint8_t chunk[4096];
    size_t at = 0;
    ssize_t n;

    while ((n = recv(fd, chunk, sizeof chunk, 0)) > 0)
        for (ssize_t i = 0; i < n; i++, at++)
            if (chunk[i] != byte_at(at, key))
                fail();
    assert_int_equal(n, 0);
    assert_int_equal(at, BYTES);
}

static void bytes_go_both_ways(void **state)
{
    Writing there = {.fd = left[0], .key = 1}, back = {.fd = right[0], .key = 2};
    pthread_t writers[2];

    (void)state;
    pthread_create(&writers[0], NULL, write_all, &there);
    pthread_create(&writers[1], NULL, write_all, &back);
    assert_stream(right[0], 1); /* the other way round is full meanwhile */
    assert_stream(left[0], 2);
    pthread_join(writers[0], NULL);
    pthread_join(writers[1], NULL);
    pthread_join(thread, NULL);
    assert_int_equal(result, 0);
    assert_int_equal(atomic_load(&relay.bytes), 2 * BYTES);
}

/* A source can write all it has before its destination reads any of it. */
static void a_writer_does_not_wait_for_its_reader(void **state)
{
    Writing there = {.fd = left[0], .key = 1};
    struct timeval patience = {.tv_sec = 20};

    (void)state;
    setsockopt(left[0], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    write_all(&there);
    assert_stream(right[0], 1);
    close_fd(&right[0]);
    pthread_join(thread, NULL);
    assert_int_equal(result, 0);
}

static void one_direction_may_end_before_the_other(void **state)
{
    char byte = 'a';

    (void)state;
    assert_int_equal(shutdown(left[0], SHUT_WR), 0);
    assert_int_equal(recv(right[0], &byte, 1, 0), 0);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(send(right[0], "x", 1, MSG_NOSIGNAL), 1);
        assert_int_equal(recv(left[0], &byte, 1, 0), 1);
        assert_int_equal(byte, 'x');
    }
    close_fd(&right[0]);
    assert_int_equal(recv(left[0], &byte, 1, 0), 0);
    pthread_join(thread, NULL);
    assert_int_equal(result, 0);
}

static void it_stops_when_told(void **state)
{
    uint64_t before = clock_ns();

    (void)state;
    atomic_store(&relay.stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(result, 0);
    assert_true(clock_ns() - before < UINT64_C(2000000000));
}

static void a_broken_end_is_an_error(void **state)
{
    (void)state;
    close_fd(&left[0]);
    assert_int_equal(send(right[0], "x", 1, MSG_NOSIGNAL), 1); /* to nobody */
    pthread_join(thread, NULL);
    assert_int_equal(result, -EPIPE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bytes_go_both_ways, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_writer_does_not_wait_for_its_reader, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_direction_may_end_before_the_other, set_up, tear_down),
        cmocka_unit_test_setup_teardown(it_stops_when_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_broken_end_is_an_error, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
