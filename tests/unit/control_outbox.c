/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What waits until its reader reads: order, bounds, ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/control/outbox.h"

typedef struct World {
    struct event_base *base;
    Outbox outbox;
    int ends[2]; /* the outbox's, and its reader's */
    int emptied;
    ClientMessage out, in;
    ClientChannel channel;
    uint8_t scratch[CLIENT_PACKET_MAX];
} World;

static void on_emptied(gpointer owner)
{
    World *world = owner;

    assert_true(outbox_is_empty(&world->outbox));
    world->emptied++;
}

static int set_up(void **state)
{
    World *world = g_new0(World, 1);

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, world->ends), 0);
    world->base = event_base_new();
    outbox_init(&world->outbox, world->base, world->ends[0], on_emptied, world);
    client_channel_init(&world->channel, world->ends[1]);
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    World *world = *state;

    outbox_deinit(&world->outbox);
    client_channel_deinit(&world->channel);
    event_base_free(world->base);
    close(world->ends[0]);
    if (world->ends[1] >= 0)
        close(world->ends[1]);
    g_free(world);
    return 0;
}

static int send_reply(World *world, uint32_t serial)
{
    memset(&world->out, 0, sizeof world->out);
    world->out.type = CLIENT_REPLY;
    world->out.serial = serial;
    world->out.json.length = CLIENT_JSON_MAX;
    return outbox_send(&world->outbox, &world->out, NULL, 0, world->scratch);
}

static int send_short(World *world, ClientMessageType type, const int *fds, size_t n_fds)
{
    memset(&world->out, 0, sizeof world->out);
    world->out.type = type;
    return outbox_send(&world->outbox, &world->out, fds, n_fds, world->scratch);
}

/* Replies of these serials from 0 on, so that at least n of them wait; how many there are. */
static uint32_t fill(World *world, unsigned n)
{
    uint32_t serial = 0;

    while (world->outbox.packets.length < n)
        assert_int_equal(send_reply(world, serial++), 0);
    return serial;
}

/* The next message, which may have to be sent yet. */
static int receive(World *world)
{
    event_base_loop(world->base, EVLOOP_NONBLOCK);
    return client_channel_receive(&world->channel, &world->in);
}

static void test_what_fits_does_not_wait(void **state)
{
    World *world = *state;

    assert_int_equal(send_reply(world, 5), 0);
    assert_true(outbox_is_empty(&world->outbox));
    assert_int_equal(receive(world), 1);
    assert_int_equal(world->in.serial, 5);
    assert_int_equal(world->emptied, 0);
}

static void test_nothing_overtakes_what_waits(void **state)
{
    World *world = *state;
    uint32_t n = fill(world, 10);
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    assert_int_equal(send_short(world, CLIENT_OK, &fd, 1), 0);
    close(fd); /* it has its own */
    for (uint32_t serial = 0; serial < n; serial++) {
        assert_int_equal(receive(world), 1);
        assert_int_equal(world->in.type, CLIENT_REPLY);
        assert_int_equal(world->in.serial, serial);
    }
    assert_int_equal(receive(world), 1);
    assert_int_equal(world->in.type, CLIENT_OK);
    assert_int_equal(world->in.n_fds, 1);
    assert_int_equal(world->emptied, 1);
    assert_int_equal(world->outbox.bytes, 0);
    assert_int_equal(receive(world), -EAGAIN);
    assert_int_equal(send_reply(world, 0), 0); /* and so on */
    assert_int_equal(receive(world), 1);
}

static void test_only_answers_to_operators_wait(void **state)
{
    World *world = *state;
    int error;

    do
        error = send_short(world, CLIENT_OK, NULL, 0);
    while (!error);
    assert_int_equal(error, -EAGAIN);
    assert_true(outbox_is_empty(&world->outbox));
}

static void test_what_waits_is_bounded(void **state)
{
    World *world = *state;
    uint32_t serial = 0;
    gsize most = 0;
    int error;

    while (!(error = send_reply(world, serial++)))
        most = MAX(most, world->outbox.bytes);
    assert_int_equal(error, -ENOBUFS);
    assert_true(most <= OUTBOX_MAX && most > OUTBOX_MAX - CLIENT_PACKET_MAX);
    assert_true(outbox_is_empty(&world->outbox));
    assert_int_equal(world->emptied, 0);
}

static void test_a_reader_that_goes_away_is_noticed(void **state)
{
    World *world = *state;
    int pair[2];
    char byte;

    fill(world, 3);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(send_short(world, CLIENT_OK, &pair[0], 1), 0);
    close(pair[0]);
    close(world->ends[1]);
    world->ends[1] = -1;
    event_base_loop(world->base, EVLOOP_NONBLOCK);
    assert_int_equal(world->emptied, 1);
    assert_int_equal(read(pair[1], &byte, 1), 0); /* nobody holds the other end */
    close(pair[1]);
    assert_int_equal(send_reply(world, 0), -EPIPE);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_fits_does_not_wait),
        TEST(test_nothing_overtakes_what_waits),
        TEST(test_only_answers_to_operators_wait),
        TEST(test_what_waits_is_bounded),
        TEST(test_a_reader_that_goes_away_is_noticed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
