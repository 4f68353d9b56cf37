/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Connections of other daemons: strangers take nothing from those that serve VMs, nor one host's from
 * another's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/control/peer_crowd.h"

static PeerCrowd crowd;

static int set_up(void **state)
{
    (void)state;
    peer_crowd_init(&crowd);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    peer_crowd_deinit(&crowd);
    return 0;
}

/* As many as there is room for. */
static guint enter_all(const char *host)
{
    guint n = 0;

    while (n <= PEER_STRANGERS_MAX && peer_crowd_enter(&crowd, host))
        n++;
    return n;
}

static void one_host_leaves_room_for_others(void **state)
{
    (void)state;
    assert_int_equal(enter_all("192.0.2.1"), PEER_STRANGERS_PER_HOST_MAX);
    assert_true(peer_crowd_enter(&crowd, "192.0.2.2"));
    assert_false(peer_crowd_enter(&crowd, "192.0.2.1"));
    peer_crowd_leave(&crowd, "192.0.2.1", FALSE);
    assert_true(peer_crowd_enter(&crowd, "192.0.2.1"));
}

static void all_strangers_are_bounded(void **state)
{
    guint n = 0;

    (void)state;
    for (guint i = 0; i < 16; i++) {
        g_autofree char *host = g_strdup_printf("2001:db8::%u", i);
        n += enter_all(host);
    }
    assert_int_equal(n, PEER_STRANGERS_MAX);
}

static void whoever_is_proven_makes_room(void **state)
{
    (void)state;
    for (guint i = 0; i < PEER_PROVEN_MAX; i++) {
        assert_true(peer_crowd_enter(&crowd, "192.0.2.1"));
        assert_true(peer_crowd_prove(&crowd, "192.0.2.1"));
    }
    assert_true(peer_crowd_enter(&crowd, "192.0.2.1"));
    assert_false(peer_crowd_prove(&crowd, "192.0.2.1")); /* and stays a stranger */
    peer_crowd_leave(&crowd, "192.0.2.1", TRUE);
    assert_true(peer_crowd_prove(&crowd, "192.0.2.1"));
    assert_int_equal(enter_all("192.0.2.1"), PEER_STRANGERS_PER_HOST_MAX);
}

static void nothing_is_kept_of_who_left(void **state)
{
    (void)state;
    for (guint i = 0; i < 10; i++) {
        guint n = enter_all("192.0.2.1");
        assert_true(peer_crowd_prove(&crowd, "192.0.2.1"));
        peer_crowd_leave(&crowd, "192.0.2.1", TRUE);
        for (guint j = 1; j < n; j++)
            peer_crowd_leave(&crowd, "192.0.2.1", FALSE);
        assert_int_equal(n, PEER_STRANGERS_PER_HOST_MAX);
        assert_int_equal(crowd.strangers, 0);
        assert_int_equal(crowd.proven, 0);
        assert_int_equal(g_hash_table_size(crowd.hosts), 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_host_leaves_room_for_others),
        TEST(all_strangers_are_bounded),
        TEST(whoever_is_proven_makes_room),
        TEST(nothing_is_kept_of_who_left),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
