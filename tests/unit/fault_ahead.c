/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemon/fault/ahead.h"
#include "daemon/fault/import.h"

enum { HEAD_START_MS = 500 };

#define MS   UINT64_C(1000000)
#define GATE UINT64_C(1000000000000)
#define END  (GATE + HEAD_START_MS * MS)

typedef struct World {
    Import import;
    Ahead ahead;
    PageTableHeader header;
} World;

static void set_received(World *world, uint64_t bytes)
{
    atomic_store(&world->import.stream.channels[0].channel.bytes, bytes);
}

static bool catches_up(World *world, uint64_t now)
{
    ahead_catch_up(&world->ahead, &world->import, now);
    return world->ahead.stage == AHEAD_CATCHING;
}

/* An import whose gate has just opened. */
static int set_up(void **state)
{
    World *world = calloc(1, sizeof *world);

    assert_non_null(world);
    world->import.config.assist = true;
    world->import.config.head_start_ms = HEAD_START_MS;
    world->import.table.header = &world->header;
    atomic_store(&world->import.gate_ns, GATE);
    world->import.stream.n_channels = 1;
    set_received(world, UINT64_C(1) << 40);
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    free(*state);
    return 0;
}

static bool goes_on(World *world, uint64_t now)
{
    return ahead_goes_on(&world->ahead, &world->import, now);
}

static void it_ends_in_time_and_for_good(void **state)
{
    World *world = *state;

    assert_true(goes_on(world, GATE - 1)); /* by a clock looked at before */
    assert_true(goes_on(world, GATE));
    assert_int_equal(world->header.ahead_ns, 0);
    ahead_moved(&world->ahead, &world->import, GATE + MS);
    assert_int_equal(world->header.ahead_ns, GATE + MS);
    ahead_moved(&world->ahead, &world->import, END - 1);
    assert_int_equal(world->header.ahead_ns, END - 1);
    ahead_moved(&world->ahead, &world->import, END);
    assert_int_equal(world->header.ahead_ns, 0);
    assert_false(goes_on(world, GATE));
}

static void all_that_came_is_its_end_too(void **state)
{
    World *world = *state;

    ahead_moved(&world->ahead, &world->import, GATE);
    assert_false(catches_up(world, GATE));
    ahead_complete(&world->ahead, &world->import, GATE + 100 * MS);
    assert_false(goes_on(world, GATE + 100 * MS));
    /* The guest catches up for as long as it took. */
    assert_true(catches_up(world, GATE + 200 * MS - 1));
    assert_int_equal(world->header.ahead_ns, GATE + 200 * MS - 1);
    ahead_complete(&world->ahead, &world->import, GATE + 200 * MS);
    assert_false(catches_up(world, GATE + 200 * MS));
    assert_int_equal(world->header.ahead_ns, 0);
    ahead_moved(&world->ahead, &world->import, GATE + 200 * MS);
    ahead_complete(&world->ahead, &world->import, GATE + 200 * MS);
    assert_int_equal(world->header.ahead_ns, 0);
}

static void nor_does_it_catch_up_beyond_that(void **state)
{
    World *world = *state;

    ahead_complete(&world->ahead, &world->import, GATE + 400 * MS);
    assert_true(catches_up(world, END - 1));
    assert_false(catches_up(world, END));
    assert_int_equal(world->header.ahead_ns, 0);
}

static void a_limit_ends_that_as_well(void **state)
{
    World *world = *state;

    ahead_complete(&world->ahead, &world->import, GATE + 100 * MS);
    atomic_store(&world->import.limit, 1 << 20);
    assert_false(catches_up(world, GATE + 110 * MS));
    assert_int_equal(world->header.ahead_ns, 0);
}

static void nor_does_a_slow_link(void **state)
{
    World *world = *state;
    const uint64_t proof = AHEAD_PROVE_MS * MS;
    const uint64_t least = proof / 1000 * AHEAD_LEAST_MB_S;

    set_received(world, 0);
    assert_true(goes_on(world, GATE + proof - 1000));
    set_received(world, least);
    assert_true(goes_on(world, GATE + proof));
    ahead_moved(&world->ahead, &world->import, GATE + proof);
    set_received(world, least - 1);
    assert_false(goes_on(world, GATE + proof));
    assert_int_equal(world->header.ahead_ns, 0);
    set_received(world, 2 * least);
    assert_false(goes_on(world, GATE + proof));
}

/* What is here is here, however slowly it came. */
static void who_catches_up_needs_no_link(void **state)
{
    World *world = *state;

    set_received(world, 0);
    ahead_complete(&world->ahead, &world->import, GATE + (AHEAD_PROVE_MS - 1) * MS);
    assert_true(catches_up(world, GATE + AHEAD_PROVE_MS * MS));
}

static void there_is_none_before_the_gate(void **state)
{
    World *world = *state;

    atomic_store(&world->import.gate_ns, 0);
    assert_false(goes_on(world, GATE));
    ahead_moved(&world->ahead, &world->import, GATE);
    assert_int_equal(world->header.ahead_ns, 0);
    atomic_store(&world->import.gate_ns, GATE);
    assert_true(goes_on(world, GATE));
}

static void there_is_none_of_direct_mode(void **state)
{
    World *world = *state;

    world->import.config.assist = false;
    assert_false(goes_on(world, GATE));
    world->import.config.assist = true;
    world->import.config.head_start_ms = 0;
    assert_false(goes_on(world, GATE));
}

static void a_limit_ends_it(void **state)
{
    World *world = *state;

    ahead_moved(&world->ahead, &world->import, GATE);
    atomic_store(&world->import.limit, 1 << 20);
    assert_false(goes_on(world, GATE + MS));
    assert_int_equal(world->header.ahead_ns, 0);
}

static void so_does_a_lost_connection(void **state)
{
    World *world = *state;

    ahead_moved(&world->ahead, &world->import, GATE);
    ahead_lost(&world->ahead, &world->import, GATE + MS);
    assert_false(goes_on(world, GATE + MS));
    assert_int_equal(world->header.ahead_ns, 0);
}

static void so_does_an_import_that_serves_no_more(void **state)
{
    World *world = *state;

    ahead_moved(&world->ahead, &world->import, GATE);
    atomic_store(&world->import.withdrawn, true);
    assert_false(goes_on(world, GATE + MS));
    assert_int_equal(world->header.ahead_ns, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(it_ends_in_time_and_for_good, set_up, tear_down),
        cmocka_unit_test_setup_teardown(all_that_came_is_its_end_too, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nor_does_it_catch_up_beyond_that, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_limit_ends_that_as_well, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nor_does_a_slow_link, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_catches_up_needs_no_link, set_up, tear_down),
        cmocka_unit_test_setup_teardown(there_is_none_before_the_gate, set_up, tear_down),
        cmocka_unit_test_setup_teardown(there_is_none_of_direct_mode, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_limit_ends_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(so_does_a_lost_connection, set_up, tear_down),
        cmocka_unit_test_setup_teardown(so_does_an_import_that_serves_no_more, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
