/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client/qemu/relay.h"

#define MS   UINT64_C(1000000)
#define TICK (10 * MS)

typedef struct Clock {
    Relay relay;
    RelayView view;
} Clock;

/* A daemon that serves, a moment after memory was registered. */
static Clock well(void)
{
    Clock c = {.view = {.now = 1000 * MS, .registered_at = 990 * MS, .connected = true}};

    relay_init(&c.relay);
    c.view.serving = true;
    assert_int_equal(relay_tick(&c.relay, &c.view), RELAY_STAY);
    return c;
}

static RelayStep tick(Clock *c)
{
    c->view.now += TICK;
    return relay_tick(&c->relay, &c->view);
}

/* Ticks until something is to be done, at most this long; the time it took. */
static uint64_t until(Clock *c, RelayStep step, uint64_t most)
{
    uint64_t begin = c->view.now;
    RelayStep now = RELAY_STAY;

    while (now == RELAY_STAY && c->view.now - begin < most)
        now = tick(c);
    assert_int_equal(now, step);
    return c->view.now - begin;
}

static void stays(Clock *c, uint64_t time)
{
    for (uint64_t begin = c->view.now; c->view.now - begin < time;)
        assert_int_equal(tick(c), RELAY_STAY);
}

static void a_daemon_that_is_well_keeps_the_faults(void **state)
{
    Clock c = well();

    (void)state;
    for (int i = 0; i < 1000; i++) {
        c.view.busy_since[i % 3] = c.view.now;
        c.view.readable_since = i % 2 ? c.view.now : 0;
        assert_int_equal(tick(&c), RELAY_STAY);
    }
}

static void a_connection_that_ends_counts_at_once(void **state)
{
    Clock c = well();

    (void)state;
    c.view.connected = false;
    assert_int_equal(tick(&c), RELAY_ENTER);
    /* For good, and all is woken every 50 ms. */
    for (int i = 0; i < 100; i++)
        assert_in_range(until(&c, RELAY_WAKE, 1000 * MS), 50 * MS, 60 * MS);
}

static void also_before_it_ever_served(void **state)
{
    Clock c = {.view = {.now = 1000 * MS, .registered_at = 1000 * MS}};

    (void)state;
    relay_init(&c.relay);
    assert_int_equal(relay_tick(&c.relay, &c.view), RELAY_ENTER);
}

static void a_daemon_has_50_ms_to_begin(void **state)
{
    Clock c = {.view = {.now = 1000 * MS, .registered_at = 1000 * MS, .connected = true}};

    (void)state;
    relay_init(&c.relay);
    c.view.readable_since = c.view.now;
    assert_int_equal(until(&c, RELAY_ENTER, 1000 * MS), 50 * MS);
    until(&c, RELAY_WAKE, 100 * MS);
    /* It has done nothing wrong: once it serves they are its. */
    c.view.serving = true;
    assert_int_equal(tick(&c), RELAY_LEAVE);
    c.view.readable_since = 0;
    stays(&c, 20 * MS);
    /* From now on it has to prove itself, and no more than any other. */
    c.view.serving = false;
    assert_int_equal(tick(&c), RELAY_ENTER);
    c.view.serving = true;
    assert_in_range(until(&c, RELAY_LEAVE, 1000 * MS), 200 * MS, 220 * MS);
}

static void one_that_serves_badly_at_once_is_not_well(void **state)
{
    Clock c = {.view = {.now = 1000 * MS, .registered_at = 900 * MS, .connected = true}};

    (void)state;
    relay_init(&c.relay);
    assert_int_equal(relay_tick(&c.relay, &c.view), RELAY_ENTER);
    c.view.serving = true;
    c.view.busy_since[0] = c.view.now - 50 * MS;
    assert_int_equal(tick(&c), RELAY_STAY);
    assert_in_range(until(&c, RELAY_WAKE, 1000 * MS), 10 * MS, 60 * MS);
    c.view.busy_since[0] = 0;
    assert_int_equal(tick(&c), RELAY_LEAVE);
}

static void one_that_stops_serving_counts_at_once(void **state)
{
    Clock c = well();

    (void)state;
    c.view.serving = false;
    assert_int_equal(tick(&c), RELAY_ENTER);
}

static void a_fault_that_is_50_ms_old_is_qemus(void **state)
{
    Clock c = well();

    (void)state;
    c.view.busy_since[PAGE_TABLE_BUSY - 1] = c.view.now;
    assert_int_equal(until(&c, RELAY_ENTER, 1000 * MS), 50 * MS);
    /* As long as it is not resolved the daemon is not well. */
    assert_int_equal(until(&c, RELAY_WAKE, 1000 * MS), 50 * MS);
    assert_int_equal(until(&c, RELAY_WAKE, 1000 * MS), 50 * MS);
    c.view.busy_since[PAGE_TABLE_BUSY - 1] = 0;
    stays(&c, 200 * MS);
    assert_int_equal(tick(&c), RELAY_LEAVE);
    stays(&c, 1000 * MS);
}

static void one_that_nobody_reads_too(void **state)
{
    Clock c = well();

    (void)state;
    c.view.readable_since = c.view.now;
    assert_int_equal(until(&c, RELAY_ENTER, 1000 * MS), 50 * MS);
}

static void a_time_in_the_future_is_not_trusted(void **state)
{
    Clock c = well();

    (void)state;
    c.view.busy_since[0] = c.view.now + TICK + 1; /* written just after we looked at the clock */
    assert_int_equal(tick(&c), RELAY_STAY);
    c.view.busy_since[0] = UINT64_MAX;
    assert_int_equal(tick(&c), RELAY_ENTER);
}

static void being_well_must_last(void **state)
{
    Clock c = well();

    (void)state;
    c.view.busy_since[0] = c.view.now;
    until(&c, RELAY_ENTER, 1000 * MS);
    for (int i = 0; i < 10; i++) {
        c.view.busy_since[0] = 0;
        stays(&c, 150 * MS);
        c.view.busy_since[0] = c.view.now - 50 * MS;
        assert_int_equal(tick(&c), RELAY_WAKE);
    }
    c.view.busy_since[0] = 0;
    assert_in_range(until(&c, RELAY_LEAVE, 1000 * MS), 200 * MS, 220 * MS);
}

/* It holds no fault while we relay, so it looks well, and does nothing when it is given them back. */
static void one_that_hangs_idle_is_tried_less_and_less(void **state)
{
    static const uint64_t expected[] = {200, 400, 800, 1600, 1600, 1600};
    Clock c = well();

    (void)state;
    for (unsigned i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        c.view.readable_since = c.view.now;
        until(&c, RELAY_ENTER, 100 * MS);
        c.view.readable_since = 0;
        assert_in_range(until(&c, RELAY_LEAVE, 3000 * MS), expected[i] * MS,
                        (expected[i] + 20) * MS);
    }
    /* Once it was well for long enough, all is forgotten. */
    stays(&c, 2000 * MS);
    c.view.readable_since = c.view.now;
    until(&c, RELAY_ENTER, 100 * MS);
    c.view.readable_since = 0;
    assert_in_range(until(&c, RELAY_LEAVE, 3000 * MS), 200 * MS, 220 * MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_daemon_that_is_well_keeps_the_faults),
        cmocka_unit_test(a_connection_that_ends_counts_at_once),
        cmocka_unit_test(also_before_it_ever_served),
        cmocka_unit_test(a_daemon_has_50_ms_to_begin),
        cmocka_unit_test(one_that_serves_badly_at_once_is_not_well),
        cmocka_unit_test(one_that_stops_serving_counts_at_once),
        cmocka_unit_test(a_fault_that_is_50_ms_old_is_qemus),
        cmocka_unit_test(one_that_nobody_reads_too),
        cmocka_unit_test(a_time_in_the_future_is_not_trusted),
        cmocka_unit_test(being_well_must_last),
        cmocka_unit_test(one_that_hangs_idle_is_tried_less_and_less),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
