/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An export's control connection: who holds the lease, what is sent, and that nobody waits for it.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/core/clock.h"
#include "daemon/source/export.h"
#include "tests/unit/core_regions.h"

enum { LINES = 2, PATIENCE_MS = 20000 };

static Export *export;
static _Atomic unsigned leased, lost, released;
static PeerMessage message;

/* A destination's connection; its other end is served by a thread. */
static struct {
    pthread_t thread;
    PeerSocket *peer;
} lines[LINES];

static void count(void *owner, Export *of, ExportEvent event)
{
    (void)owner;
    (void)of;
    if (event == EXPORT_LEASED)
        atomic_fetch_add(&leased, 1);
    else if (event == EXPORT_LOST)
        atomic_fetch_add(&lost, 1);
    else if (event == EXPORT_RELEASED)
        atomic_fetch_add(&released, 1);
}

static void *serve(void *argument)
{
    PeerMessage *scratch = calloc(1, sizeof *scratch);

    export_serve_control(export, argument, scratch);
    free(scratch);
    return NULL;
}

/* Without an answer yet. */
static void attach(unsigned line)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    lines[line].peer = peer_socket_new(pair[0]);
    assert_int_equal(pthread_create(&lines[line].thread, NULL, serve, peer_socket_new(pair[1])), 0);
}

static int hear(unsigned line)
{
    return peer_socket_receive(lines[line].peer, &message, PATIENCE_MS);
}

static void hang_up(unsigned line)
{
    peer_socket_free(lines[line].peer);
    lines[line].peer = NULL;
    pthread_join(lines[line].thread, NULL);
}

static int set_up(void **state)
{
    uint8_t uuid[LIMIT_UUID] = {1};
    RegionSet regions = {0};
    int error;

    (void)state;
    add_region(&regions, 10, 4096, memfd_create("ram", MFD_CLOEXEC));
    export = export_new(uuid, "guest", getpid(), &regions, count, NULL, &error);
    region_set_deinit(&regions);
    atomic_store(&leased, 0);
    atomic_store(&lost, 0);
    atomic_store(&released, 0);
    return export ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < LINES; i++)
        if (lines[i].peer)
            hang_up(i);
    export_close(export);
    export_unref(export);
    return 0;
}

static void say(unsigned line, PeerMessageType type)
{
    PeerMessage *out = calloc(1, sizeof *out);

    assert_non_null(out);
    out->type = type;
    assert_int_equal(peer_socket_send(lines[line].peer, out), 0);
    free(out);
}

static void a_lease_tells_the_way_in(void **state)
{
    uint64_t seal = export_seal(export);

    (void)state;
    attach(0);
    assert_int_equal(hear(0), 0);
    assert_int_equal(message.type, PEER_ATTACHED);
    assert_true(message.attached.seal == seal);
    assert_int_equal(message.attached.regions.n, 1);
    assert_string_equal(message.attached.regions.regions[0].id, "ram0");
    Export *found = export_find_by_secret(message.session, message.attached.secret);
    assert_ptr_equal(found, export);
    export_unref(found);
    say(0, PEER_PING);
    assert_int_equal(hear(0), 0);
    assert_int_equal(message.type, PEER_PONG);
    hang_up(0);
    assert_int_equal(atomic_load(&leased), 1);
    assert_int_equal(atomic_load(&lost), 1);
}

/* And what the one before it still says or does is of no account. */
static void the_next_lease_ends_the_one_before(void **state)
{
    uint8_t secret[LIMIT_TOKEN];
    uint32_t session;

    (void)state;
    export_seal(export);
    attach(0);
    assert_int_equal(hear(0), 0);
    session = message.session;
    memcpy(secret, message.attached.secret, sizeof secret);
    attach(1);
    assert_int_equal(hear(1), 0);
    assert_int_not_equal(message.session, session);
    assert_null(export_find_by_secret(session, secret));
    assert_int_equal(hear(0), -ECONNRESET);
    hang_up(0);
    assert_int_equal(atomic_load(&lost), 0);
    message = (PeerMessage){.type = PEER_RUNNING};
    assert_int_equal(export_order(export, &message), 0);
    assert_int_equal(hear(1), 0);
    assert_int_equal(message.type, PEER_RUNNING);
    say(1, PEER_RELEASED);
    hang_up(1);
    assert_int_equal(atomic_load(&leased), 2);
    assert_int_equal(atomic_load(&released), 1);
    assert_int_equal(atomic_load(&lost), 0);
}

/* Nobody has everything of what may not be read: its connection ends, and that is no good end. */
static void none_has_everything_before_the_seal_or_after_the_fence(void **state)
{
    (void)state;
    attach(0);
    assert_int_equal(hear(0), 0);
    say(0, PEER_RELEASED);
    assert_int_equal(hear(0), -ECONNRESET);
    hang_up(0);
    assert_int_equal(atomic_load(&lost), 1);
    export_seal(export);
    export_fence(export, "it ran");
    attach(0);
    assert_int_equal(hear(0), 0);
    say(0, PEER_RELEASED);
    assert_int_equal(hear(0), -ECONNRESET);
    hang_up(0);
    assert_int_equal(atomic_load(&lost), 2);
    assert_int_equal(atomic_load(&released), 0);
}

/* However often it is said, also over a connection that took the place of the first. */
static void that_all_is_there_is_told_once(void **state)
{
    (void)state;
    export_seal(export);
    for (unsigned line = 0; line < LINES; line++) {
        attach(line);
        assert_int_equal(hear(line), 0);
        for (unsigned i = 0; i < 100; i++)
            say(line, PEER_RELEASED);
        say(line, PEER_PING);
        assert_int_equal(hear(line), 0);
        assert_int_equal(message.type, PEER_PONG);
    }
    assert_int_equal(atomic_load(&released), 1);
    message = (PeerMessage){.type = PEER_RELEASED};
    assert_int_equal(export_order(export, &message), 0);
    assert_int_equal(hear(1), 0);
    assert_int_equal(message.type, PEER_RELEASED);
}

static void a_closed_export_gives_no_lease(void **state)
{
    (void)state;
    export_close(export);
    attach(0);
    assert_int_equal(hear(0), -ECONNRESET);
    hang_up(0);
    assert_int_equal(atomic_load(&leased), 0);
    message = (PeerMessage){.type = PEER_RUNNING};
    assert_int_equal(export_order(export, &message), -ENOTCONN);
}

/* The control thread sends orders: a destination that does not read must not hold it up. */
static void nobody_waits_for_a_peer_that_does_not_read(void **state)
{
    uint64_t longest = 0, before;
    unsigned sent = 0;
    int error = 0;

    (void)state;
    attach(0);
    assert_int_equal(hear(0), 0);
    message = (PeerMessage){.type = PEER_RUNNING};
    while (!error && sent < 1000000) {
        before = clock_ns();
        error = export_order(export, &message);
        if (clock_ns() - before > longest)
            longest = clock_ns() - before;
        sent++;
    }
    assert_int_equal(error, -ETIMEDOUT);
    assert_true(sent > 100);
    assert_true(longest < UINT64_C(500000000));
    pthread_join(lines[0].thread, NULL); /* its connection has ended */
    assert_int_equal(atomic_load(&lost), 1);
    peer_socket_free(lines[0].peer);
    lines[0].peer = NULL;
}

static void a_fence_is_told_once_and_later(void **state)
{
    (void)state;
    attach(0);
    assert_int_equal(hear(0), 0);
    export_fence(export, "it ran");
    export_fence(export, "and again");
    assert_int_equal(hear(0), 0);
    assert_int_equal(message.type, PEER_FENCED);
    assert_string_equal(message.status.text, "it ran");
    attach(1);
    assert_int_equal(hear(1), 0);
    assert_int_equal(message.attached.code, PEER_ERROR_FENCED);
    assert_string_equal(message.attached.text, "it ran");
    assert_int_equal(hear(0), -ECONNRESET);
}

static void it_is_found_by_its_token_only(void **state)
{
    uint8_t token[LIMIT_TOKEN];
    Export *found;

    (void)state;
    memcpy(token, export->token, sizeof token);
    found = export_find_by_token(token);
    assert_ptr_equal(found, export);
    export_unref(found);
    token[LIMIT_TOKEN - 1] ^= 1;
    assert_null(export_find_by_token(token));
    assert_null(export_find_by_secret(0, export->secret)); /* no lease, no secret */
    memcpy(token, export->token, sizeof token);
    export_close(export);
    assert_null(export_find_by_token(token));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* The source's QEMU must not wait for a relay that will never be. */
static void who_waits_for_a_relay_is_turned_away(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX}; /* the kernel finds a name */
    socklen_t length = sizeof address;
    struct pollfd waiting = {.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    int late = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)state;
    export->relay_listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(export->relay_listener, (struct sockaddr *)&address, sizeof(sa_family_t)),
                     0);
    assert_int_equal(listen(export->relay_listener, 1), 0);
    assert_int_equal(getsockname(export->relay_listener, (struct sockaddr *)&address, &length), 0);
    assert_int_equal(connect(waiting.fd, (struct sockaddr *)&address, length), 0);
    assert_int_equal(poll(&waiting, 1, 0), 0);
    export_close(export);
    assert_int_equal(poll(&waiting, 1, 0), 1);
    assert_true(waiting.revents & POLLHUP);
    assert_int_equal(connect(late, (struct sockaddr *)&address, length), -1);
    close(waiting.fd);
    close(late);
}

/* Data connections say nothing for as long as nothing is asked: they end with the one that is pinged. */
static void a_lost_destination_loses_its_channels(void **state)
{
    static const PeerChannelKind kinds[] = {PEER_CHANNEL_URGENT, PEER_CHANNEL_BULK,
                                            PEER_CHANNEL_RELAY};
    ExportChannel *channels[3];
    uint8_t secret[LIMIT_TOKEN];
    int ends[3][2];
    uint32_t session;
    char byte;

    (void)state;
    export_seal(export);
    attach(0);
    assert_int_equal(hear(0), 0);
    session = message.session;
    memcpy(secret, message.attached.secret, sizeof secret);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends[i]), 0);
        channels[i] = export_enter_channel(export, ends[i][1], session, kinds[i], i);
        assert_non_null(channels[i]);
        assert_int_equal(recv(ends[i][0], &byte, 1, MSG_DONTWAIT), -1);
    }
    hang_up(0);
    for (unsigned i = 0; i < 3; i++) {
        bool relay = kinds[i] == PEER_CHANNEL_RELAY;

        assert_int_equal(recv(ends[i][0], &byte, 1, MSG_DONTWAIT), relay ? -1 : 0);
        export_leave_channel(export, channels[i]);
        close(ends[i][0]);
        close(ends[i][1]);
    }
    /* Nor do others come in its place. */
    assert_null(export_find_by_secret(session, secret));
    assert_null(export_enter_channel(export, 0, session, PEER_CHANNEL_BULK, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(who_waits_for_a_relay_is_turned_away),
        TEST(a_lease_tells_the_way_in),
        TEST(the_next_lease_ends_the_one_before),
        TEST(none_has_everything_before_the_seal_or_after_the_fence),
        TEST(that_all_is_there_is_told_once),
        TEST(a_closed_export_gives_no_lease),
        TEST(nobody_waits_for_a_peer_that_does_not_read),
        TEST(a_fence_is_told_once_and_later),
        TEST(it_is_found_by_its_token_only),
        TEST(a_lost_destination_loses_its_channels),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
