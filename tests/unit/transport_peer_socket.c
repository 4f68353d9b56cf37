/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How two daemons greet each other, and which features hold afterwards.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/transport/peer_socket.h"

#define UNKNOWN (UINT64_C(1) << 63)

static PeerSocket *one, *other;
static PeerMessage message, others;
static char text[LIMIT_TEXT + 1];

static int set_up(void **state)
{
    int pair[2];

    (void)state;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
        return -1;
    one = peer_socket_new(pair[0]);
    other = peer_socket_new(pair[1]);
    return !one || !other;
}

static int tear_down(void **state)
{
    (void)state;
    peer_socket_free(one);
    peer_socket_free(other);
    return 0;
}

static void *welcome(void *result)
{
    char others_text[LIMIT_TEXT + 1];

    *(int *)result = peer_socket_welcome(other, &others, others_text);
    return NULL;
}

static void daemons_of_one_kind_have_all_features_in_common(void **state)
{
    pthread_t thread;
    int result = 1;

    (void)state;
    assert_true(one->features == 0 && other->features == 0);
    assert_int_equal(pthread_create(&thread, NULL, welcome, &result), 0);
    assert_int_equal(peer_socket_greet(one, &message, text), 0);
    pthread_join(thread, NULL);
    assert_int_equal(result, 0);
    assert_true(one->features == (PEER_FEATURE_RDMA | PEER_FEATURE_AHEAD));
    assert_true(other->features == (PEER_FEATURE_RDMA | PEER_FEATURE_AHEAD));
}

/* Greets a daemon that is like this one but for its features: it answers before it is asked. */
static int greet(uint64_t required, uint64_t optional)
{
    struct utsname name;

    memset(&message, 0, sizeof message);
    message.type = PEER_STARTED;
    message.start.magic = PEER_MAGIC;
    assert_int_equal(peer_socket_send(other, &message), 0);
    memset(&message, 0, sizeof message);
    message.type = PEER_HELLO;
    message.hello.version_lowest = PEER_VERSION_LOWEST;
    message.hello.version_highest = PEER_VERSION_HIGHEST;
    message.hello.features_required = required;
    message.hello.features_optional = optional;
    message.hello.page_size = (uint64_t)sysconf(_SC_PAGESIZE);
    assert_int_equal(uname(&name), 0);
    snprintf(message.hello.machine, sizeof message.hello.machine, "%s", name.machine);
    strcpy(message.hello.agent, "postcopyd 9");
    assert_int_equal(peer_socket_send(other, &message), 0);
    return peer_socket_greet(one, &message, text);
}

static void what_the_other_side_lacks_does_not_hold(void **state)
{
    (void)state;
    assert_int_equal(greet(0, 0), 0);
    assert_true(one->features == 0);
}

static void what_it_requires_holds_too(void **state)
{
    (void)state;
    assert_int_equal(greet(PEER_FEATURE_RDMA, 0), 0);
    assert_true(one->features == PEER_FEATURE_RDMA);
}

static void unknown_features_are_ignored_unless_required(void **state)
{
    (void)state;
    assert_int_equal(greet(0, UNKNOWN | PEER_FEATURE_RDMA), 0);
    assert_true(one->features == PEER_FEATURE_RDMA);
    assert_int_equal(tear_down(state), 0);
    assert_int_equal(set_up(state), 0);
    assert_int_equal(greet(UNKNOWN, PEER_FEATURE_RDMA), -EPROTONOSUPPORT);
    assert_string_equal(text, "postcopyd 9 requires features this daemon does not have");
    assert_true(one->features == 0);
}

/* What this daemon says of itself. */
static void it_requires_nothing(void **state)
{
    (void)state;
    assert_int_equal(greet(0, 0), 0);
    assert_int_equal(peer_socket_receive(other, &others, 1000), 0);
    assert_int_equal(others.type, PEER_START);
    assert_int_equal(peer_socket_receive(other, &others, 1000), 0);
    assert_int_equal(others.type, PEER_HELLO);
    assert_true(others.hello.features_required == 0);
    assert_true(others.hello.features_optional == (PEER_FEATURE_RDMA | PEER_FEATURE_AHEAD));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(daemons_of_one_kind_have_all_features_in_common),
        TEST(what_the_other_side_lacks_does_not_hold),
        TEST(what_it_requires_holds_too),
        TEST(unknown_features_are_ignored_unless_required),
        TEST(it_requires_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
