/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "client/qemu/hold.h"
#include "tests/unit/preload_plan.h"

#define NOW   UINT64_C(1000000000000)
#define OTHER UINT64_C(0x10000) /* an address that is not the plan's */

typedef struct World {
    uint8_t *memory;
    Plan *plan;
    PageTableHeader *header;
    Hold hold;
} World;

/* A daemon that serves and just got on. */
static int set_up(void **state)
{
    static ClientMessage message;
    World *world = calloc(1, sizeof *world);
    Reason reason = {0};

    assert_non_null(world);
    world->memory = mmap(NULL, (size_t)PLAN_ALL * PLAN_PAGE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(world->memory != MAP_FAILED);
    plan_make_message(&message, world->memory);
    world->plan = plan_new(&message, plan_make_table(&message, true), -1, &reason);
    if (!world->plan)
        fail_msg("%s", reason.text);
    world->header = world->plan->table.header;
    world->header->serving = 1;
    world->header->ahead_ns = NOW;
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    World *world = *state;

    plan_free(world->plan);
    munmap(world->memory, (size_t)PLAN_ALL * PLAN_PAGE);
    free(world);
    return 0;
}

static bool is_due(World *world, uint64_t now)
{
    return hold_is_due(&world->hold, world->plan, now);
}

static void only_while_the_daemon_gets_on(void **state)
{
    World *world = *state;

    assert_true(is_due(world, NOW));
    assert_true(is_due(world, NOW + HOLD_FRESH_NS - 1));
    assert_false(is_due(world, NOW + HOLD_FRESH_NS));
    /* It wrote after we looked at the clock; anything else that lies ahead is no time. */
    assert_true(is_due(world, NOW - 1));
    assert_false(is_due(world, NOW - HOLD_FRESH_NS));
    world->header->ahead_ns = 0;
    assert_false(is_due(world, NOW));
}

static void never_for_a_daemon_that_does_not_serve(void **state)
{
    World *world = *state;

    world->header->relaying = 1;
    assert_false(is_due(world, NOW));
    world->header->relaying = 0;
    assert_true(is_due(world, NOW));
    world->header->serving = 0;
    assert_false(is_due(world, NOW));
}

static void not_while_qemu_was_asked_for_other_memory(void **state)
{
    World *world = *state;

    hold_asks(&world->hold, OTHER);
    assert_false(is_due(world, NOW));
    hold_placed(&world->hold, OTHER - PLAN_PAGE, PLAN_PAGE);
    hold_placed(&world->hold, OTHER + PLAN_PAGE, PLAN_PAGE);
    assert_false(is_due(world, NOW));
    hold_placed(&world->hold, OTHER - PLAN_PAGE, 2 * PLAN_PAGE);
    assert_true(is_due(world, NOW));
}

/* Whoever brings it. */
static void nor_for_a_page_of_the_plan(void **state)
{
    World *world = *state;

    hold_asks(&world->hold, (uintptr_t)plan_range(world->memory, 1) + 3 * PLAN_PAGE);
    plan_set_state(world->plan, 1, 3, PAGE_RECEIVED);
    plan_set_state(world->plan, 1, 2, PAGE_PRESENT);
    assert_false(is_due(world, NOW));
    plan_set_state(world->plan, 1, 3, PAGE_PRESENT);
    assert_true(is_due(world, NOW));
    hold_asks(&world->hold, (uintptr_t)plan_range(world->memory, 0));
    assert_false(is_due(world, NOW));
    plan_set_state(world->plan, 0, 0, PAGE_FOUND);
    assert_true(is_due(world, NOW));
}

static void what_finds_no_room_ends_it(void **state)
{
    World *world = *state;

    for (unsigned i = 0; i < HOLD_ASKED; i++)
        for (int twice = 0; twice < 2; twice++) /* which takes no second place */
            hold_asks(&world->hold, OTHER + i * PLAN_PAGE);
    hold_placed(&world->hold, OTHER, HOLD_ASKED * PLAN_PAGE);
    assert_true(is_due(world, NOW));
    for (unsigned i = 0; i <= HOLD_ASKED; i++)
        hold_asks(&world->hold, OTHER + i * PLAN_PAGE);
    hold_placed(&world->hold, OTHER, (HOLD_ASKED + 1) * PLAN_PAGE);
    assert_false(is_due(world, NOW));
}

static void nothing_is_held_once_others_wait(void **state)
{
    World *world = *state;

    assert_true(is_due(world, NOW));
    hold_never(&world->hold);
    assert_false(is_due(world, NOW));
}

static void no_longer_than_that_in_all(void **state)
{
    World *world = *state;

    world->hold.held_ns = HOLD_MOST_NS - 1;
    assert_true(is_due(world, NOW));
    world->hold.held_ns = HOLD_MOST_NS;
    assert_false(is_due(world, NOW));
}

static void who_waits_goes_on_by_himself(void **state)
{
    World *world = *state;
    uint64_t begin = clock_ns();

    world->header->ahead_ns = begin;
    hold_wait(&world->hold, world->plan);
    assert_true(clock_ns() - begin >= HOLD_FRESH_NS);
    assert_in_range(world->hold.held_ns, 1, clock_ns() - begin);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(only_while_the_daemon_gets_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(never_for_a_daemon_that_does_not_serve, set_up, tear_down),
        cmocka_unit_test_setup_teardown(not_while_qemu_was_asked_for_other_memory, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(nor_for_a_page_of_the_plan, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_finds_no_room_ends_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_is_held_once_others_wait, set_up, tear_down),
        cmocka_unit_test_setup_teardown(no_longer_than_that_in_all, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_waits_goes_on_by_himself, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
