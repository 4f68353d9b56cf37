/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QEMU's side of a plan: what it places beside the daemon, and what it hears of pages that are there. */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include <cmocka.h>

#include "client/qemu/clock.h"
#include "tests/unit/preload_world.h"

/* Places one behind everybody's back. */
static void put(World *world, unsigned range, unsigned page, uint8_t with)
{
    static uint8_t bytes[PLAN_PAGE] __attribute__((aligned(PLAN_PAGE)));
    uint64_t address = (uintptr_t)plan_range(world->memory, range) + (uint64_t)page * PLAN_PAGE;
    struct uffdio_copy wanted = {.dst = address, .src = (uintptr_t)bytes, .len = PLAN_PAGE};
    uint64_t piece;
    Segment *segment = plan_find(world->listen->plan, address, PLAN_PAGE, &piece);

    assert_non_null(segment);
    memset(bytes, with, sizeof bytes);
    assert_int_equal(ioctl(segment->uffd, UFFDIO_COPY, &wanted), 0);
}

/* As the daemon places one. */
static void serve(World *world, unsigned range, unsigned page, uint8_t with)
{
    plan_set_state(world->listen->plan, range, page, PAGE_RECEIVED);
    put(world, range, page, with);
    plan_set_state(world->listen->plan, range, page, PAGE_PRESENT);
}

static PageState state_of(const World *world, unsigned range, unsigned page)
{
    return plan_state(world->listen->plan, range, page);
}

static void placing_goes_by_address(void **state)
{
    World world;
    int64_t copied;

    (void)state;
    world_open(&world);
    world_register_all(&world);
    serve(&world, 1, 7, 'd');
    assert_int_equal(
        world_copy(&world, plan_range(world.memory, 1) + 7 * PLAN_PAGE, PLAN_PAGE, &copied), 0);
    assert_int_equal(copied, PLAN_PAGE);
    assert_int_equal(plan_range(world.memory, 1)[7 * PLAN_PAGE], 'd');
    assert_int_equal(state_of(&world, 1, 7), PAGE_PRESENT);
    /* Unplanned memory, and a page twice there, as without us. */
    assert_int_equal(world_copy(&world, world.memory, PLAN_PAGE, &copied), 0);
    assert_int_equal(world_copy(&world, world.memory, PLAN_PAGE, &copied), -1);
    assert_int_equal(errno, EEXIST);
    assert_int_equal(copied, -EEXIST);
    assert_int_equal(world.listen->counts.placed, 0);
    assert_int_equal(world.listen->counts.there, 1);
    world_end(&world);
}

static void one_call_may_cross_from_one_to_another(void **state)
{
    const unsigned middle = PLAN_PAGES / 2;
    uint8_t *range;
    World world;
    int64_t copied;

    (void)state;
    world_open(&world);
    world_register_all(&world);
    /* Two shards, with a page in the middle of each part that is there. */
    range = plan_range(world.memory, 0);
    serve(&world, 0, middle - 1, 'd');
    serve(&world, 0, middle, 'e');
    assert_int_equal(world_copy(&world, range + (middle - 2) * PLAN_PAGE, 4 * PLAN_PAGE, &copied),
                     0);
    assert_int_equal(copied, 4 * PLAN_PAGE);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(range[(middle - 2 + i) * PLAN_PAGE], "qdeq"[i]);
        assert_int_equal(state_of(&world, 0, middle - 2 + i), PAGE_PRESENT);
    }
    assert_int_equal(world.listen->counts.placed, 2);
    assert_int_equal(world.listen->counts.there, 2);
    /* From the range's end into the gap, by zeroes. */
    struct uffdio_zeropage zero = {
        .range = {.start = (uintptr_t)range + (PLAN_PAGES - 1) * PLAN_PAGE, .len = 2 * PLAN_PAGE}};
    assert_int_equal(listen_ioctl(world.proxy, UFFDIO_ZEROPAGE, &zero), 0);
    assert_int_equal(zero.zeropage, 2 * PLAN_PAGE);
    assert_int_equal(state_of(&world, 0, PLAN_PAGES - 1), PAGE_PRESENT);
    world_end(&world);
}

/* As without us: QEMU has no other way to find a page that is stale. */
static void what_nobody_placed_is_an_error(void **state)
{
    static const PageState states[] = {PAGE_HOLE, PAGE_MISSING, PAGE_REQUESTED, PAGE_FOUND,
                                       PAGE_REMOVED};
    const unsigned n = sizeof states / sizeof states[0];
    World world;
    int64_t copied;

    (void)state;
    world_open(&world);
    world_register_all(&world);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *page = plan_range(world.memory, 1) + (size_t)i * PLAN_PAGE;

        put(&world, 1, i, 's');
        plan_set_state(world.listen->plan, 1, i, states[i]);
        assert_int_equal(world_copy(&world, page, PLAN_PAGE, &copied), -1);
        assert_int_equal(errno, EEXIST);
        assert_int_equal(copied, -EEXIST);
        assert_int_equal(state_of(&world, 1, i), states[i]);
    }
    /* What comes before such a page is placed, as the kernel does. */
    put(&world, 1, n + 1, 's');
    assert_int_equal(world_copy(&world, plan_range(world.memory, 1) + (size_t)n * PLAN_PAGE,
                                2 * PLAN_PAGE, &copied),
                     -1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(copied, PLAN_PAGE);
    assert_int_equal(world.listen->counts.there, 0);
    /* What was found and went again is QEMU's to bring. */
    plan_set_state(world.listen->plan, 1, n + 2, PAGE_FOUND);
    assert_int_equal(world_copy(&world, plan_range(world.memory, 1) + (size_t)(n + 2) * PLAN_PAGE,
                                PLAN_PAGE, &copied),
                     0);
    assert_int_equal(state_of(&world, 1, n + 2), PAGE_PRESENT);
    world_end(&world);
}

static void *finds(void *argument)
{
    static const struct timespec pause = {.tv_nsec = 5000000};
    World *world = argument;

    nanosleep(&pause, NULL);
    plan_set_state(world->listen->plan, 0, 0, PAGE_FOUND);
    return NULL;
}

/* The daemon is about to place the page: what it says next tells whose it is. */
static void what_the_daemon_is_placing_is_waited_for(void **state)
{
    uint64_t begin;
    pthread_t thread;
    World world;
    int64_t copied;

    (void)state;
    world_open(&world);
    world_register_all(&world);
    put(&world, 0, 0, 's');
    plan_set_state(world.listen->plan, 0, 0, PAGE_RECEIVED);
    assert_int_equal(pthread_create(&thread, NULL, finds, &world), 0);
    assert_int_equal(world_copy(&world, plan_range(world.memory, 0), PLAN_PAGE, &copied), -1);
    assert_int_equal(copied, -EEXIST);
    pthread_join(thread, NULL);
    /* One that died right there placed it, in all likelihood; it is waited for once. */
    for (unsigned page = 1; page < 5; page++) {
        put(&world, 0, page, 'd');
        plan_set_state(world.listen->plan, 0, page, PAGE_RECEIVED);
    }
    begin = clock_ns();
    assert_int_equal(
        world_copy(&world, plan_range(world.memory, 0) + PLAN_PAGE, 4 * PLAN_PAGE, &copied), 0);
    assert_in_range(clock_ns() - begin, 50 * CLOCK_MS, 150 * CLOCK_MS);
    world_end(&world);
}

/*
 * A page that is there wakes who waits for it, though the kernel does not, once any fault was QEMU's: those
 * that the daemon keeps are woken by the daemon.
 */
static void who_waits_is_woken_by_a_page_that_is_there(void **state)
{
    pthread_t thread;
    World world;
    int64_t copied;
    void *seen;

    (void)state;
    world_open(&world);
    world_register_all(&world);
    uint8_t *page = plan_range(world.memory, 0) + 5 * PLAN_PAGE;
    assert_int_equal(pthread_create(&thread, NULL, world_touch, page), 0);
    assert_int_equal(world_read_fault(&world, true), (uintptr_t)page);
    struct uffdio_copy quiet = {.dst = (uintptr_t)page,
                                .src = (uintptr_t)world_content,
                                .len = PLAN_PAGE,
                                .mode = UFFDIO_COPY_MODE_DONTWAKE};
    assert_int_equal(listen_ioctl(world.proxy, UFFDIO_COPY, &quiet), 0);
    world.listen->counts.passed_on = true;
    assert_int_equal(world_copy(&world, page, PLAN_PAGE, &copied), 0);
    pthread_join(thread, &seen);
    assert_int_equal((uintptr_t)seen, 'q');
    world_end(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(placing_goes_by_address),
        cmocka_unit_test(one_call_may_cross_from_one_to_another),
        cmocka_unit_test(what_nobody_placed_is_an_error),
        cmocka_unit_test(what_the_daemon_is_placing_is_waited_for),
        cmocka_unit_test(who_waits_is_woken_by_a_page_that_is_there),
    };

    if (!world_is_allowed())
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
