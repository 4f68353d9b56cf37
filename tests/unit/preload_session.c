/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/qemu/clock.h"
#include "client/qemu/session.h"

#define MINUTE (60000 * CLOCK_MS)
#define START  (1000 * MINUTE)

typedef struct World {
    Session session;
    int daemon; /* its end */
    ClientMessage message;
    uint8_t scratch[CLIENT_PACKET_MAX];
} World;

/* QEMU opened a userfaultfd at START, and the daemon was asked then. */
static int set_up(void **state)
{
    static const QemuOptions options = {.incoming = true};
    World *world = calloc(1, sizeof *world);
    int ends[2];

    if (!world || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
        return -1;
    session_init(&world->session, &options);
    session_want(&world->session, START);
    world->session.socket = ends[0];
    client_channel_init(&world->session.channel, ends[0]);
    world->daemon = ends[1];
    *state = world;
    return session_ask(&world->session, START) && world->session.asked ? 0 : -1;
}

static int tear_down(void **state)
{
    World *world = *state;

    session_close(&world->session);
    close(world->daemon);
    free(world);
    return 0;
}

static int refuse(World *world, uint64_t now)
{
    world->message.type = CLIENT_ERROR;
    world->message.serial = world->session.serial;
    world->message.status = (ClientStatus){.status = -ECANCELED};
    snprintf(world->message.status.text, sizeof world->message.status.text, "it ended");
    assert_int_equal(client_message_send(world->daemon, &world->message, NULL, 0, world->scratch),
                     0);
    return session_receive(&world->session, now);
}

static void a_plan_that_is_taken_back_is_asked_for_anew(void **state)
{
    World *world = *state;
    uint64_t later = START + 5 * MINUTE;

    session_content(&world->session); /* a plan came */
    assert_int_equal(refuse(world, later), SESSION_REFUSED);
    assert_true(world->session.ask_at > later);
    assert_true(world->session.ask_at < later + MINUTE);
}

static void what_is_refused_is_not_asked_for_ever(void **state)
{
    World *world = *state;
    uint64_t now = START;
    unsigned times = 0;

    while (world->session.ask_at == 0 && world->session.asked && times < 1000) {
        assert_int_equal(refuse(world, now), SESSION_REFUSED);
        if (world->session.ask_at == 0)
            break;
        now = world->session.ask_at;
        assert_true(session_ask(&world->session, now));
        times++;
    }
    assert_false(world->session.asked);
    assert_in_range(times, 3, 100);
    assert_true(now <= START + MINUTE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_plan_that_is_taken_back_is_asked_for_anew, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_is_refused_is_not_asked_for_ever, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
