/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QEMU's side of a plan: what it opens and registers, and where faults go. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/lib/uffd.h"
#include "client/qemu/clock.h"
#include "tests/unit/preload_world.h"

static void a_trial_gets_a_userfaultfd(void **state)
{
    World world;
    int uffd;

    (void)state;
    world_plan(&world);
    uffd = world_open_native(O_CLOEXEC);
    assert_false(listen_owns(uffd));
    close(uffd);
    world.proxy = world_open_native(O_CLOEXEC | O_NONBLOCK);
    assert_true(listen_owns(world.proxy));
    assert_true(fcntl(world.proxy, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(world.proxy, F_GETFD) & FD_CLOEXEC);
    /* A second one while the first is open is none of ours. */
    uffd = world_open_native(O_CLOEXEC | O_NONBLOCK);
    assert_false(listen_owns(uffd));
    close(uffd);
    world_end(&world);
}

static void a_plan_that_is_lost_is_not_used(void **state)
{
    uint64_t ioctls;
    World world;
    int uffd;

    (void)state;
    world_plan(&world);
    assert_false(listen_withdraw(world.listen));
    uffd = world_open_native(O_CLOEXEC | O_NONBLOCK);
    assert_false(listen_owns(uffd));
    close(uffd);
    world_end(&world);

    /* Between the open and the registration: the native uffd has it all. */
    world_open(&world);
    assert_true(listen_withdraw(world.listen));
    assert_int_equal(world_register(&world, world.memory, WORLD_SIZE, &ioctls), 0);
    assert_int_equal(listen_registered(world.listen), 0);
    assert_false(world.listen->complete);
    world_end(&world);
}

static void *withdraw(void *argument)
{
    World *world = argument;

    assert_true(listen_withdraw(world->listen));
    return NULL;
}

/* One of QEMU's threads copies a large page, or waits for memory: the take-over does not. */
static void withdrawing_waits_for_no_ioctl(void **state)
{
    struct timespec until;
    pthread_t thread;
    World world;

    (void)state;
    world_open(&world);
    assert_ptr_equal(listen_hold(), world.listen);
    assert_int_equal(pthread_create(&thread, NULL, withdraw, &world), 0);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 5;
    assert_int_equal(pthread_timedjoin_np(thread, NULL, &until), 0);
    assert_true(world.listen->lost);
    listen_release();
    world_end(&world);
}

static void a_number_that_is_used_again_is_no_proxy(void **state)
{
    Reason reason = {0};
    World world;
    int uffd, old;

    (void)state;
    world_open(&world);
    old = world.proxy;
    uffd = uffd_open(-1, 0, &reason);
    close(old);
    assert_int_equal(dup2(uffd, old), old);
    close(uffd);
    /* It came over a socket: nobody opened it. */
    errno = 0x5a;
    assert_false(listen_owns(old));
    assert_int_equal(errno, 0x5a);
    assert_int_equal(listen_opened(old, O_NONBLOCK), old);
    assert_false(listen_owns(old));
    world_end(&world);
}

static void registration_is_divided(void **state)
{
    uint64_t ioctls;
    World world;

    (void)state;
    world_open(&world);
    /* Half of a planned range is not what was planned. */
    assert_int_equal(world_register(&world, plan_range(world.memory, 0), 4 * PLAN_PAGE, &ioctls),
                     0);
    assert_int_equal(listen_registered(world.listen), 0);
    struct uffdio_range half = {.start = (uintptr_t)plan_range(world.memory, 0),
                                .len = 4 * PLAN_PAGE};
    assert_int_equal(listen_ioctl(world.proxy, UFFDIO_UNREGISTER, &half), 0);
    world_register_all(&world);
    struct uffdio_range all = {.start = (uintptr_t)world.memory, .len = WORLD_SIZE};
    assert_int_equal(listen_ioctl(world.proxy, UFFDIO_UNREGISTER, &all), 0);
    assert_int_equal(listen_registered(world.listen), 0);
    assert_int_equal(world.memory[0] + plan_range(world.memory, 1)[0], 0);
    world_end(&world);
}

static void memory_that_another_holds_stays_with_qemu(void **state)
{
    Reason reason = {0};
    uint64_t ioctls;
    World world;
    int other;

    (void)state;
    world_open(&world);
    other = uffd_open(-1, 0, &reason);
    /* In the last shard of range 0, so that the first one has to be undone. */
    assert_int_equal(uffd_register(other, plan_range(world.memory, 0) + PLAN_PAGES / 2 * PLAN_PAGE,
                                   PLAN_PAGE, UFFDIO_REGISTER_MODE_MISSING, &reason),
                     0);
    assert_int_equal(
        world_register(&world, plan_range(world.memory, 0), PLAN_PAGES * PLAN_PAGE, &ioctls), -1);
    assert_int_equal(errno, EBUSY); /* as the kernel says without us */
    assert_int_equal(listen_registered(world.listen), 0);
    close(other);
    world_register_all(&world);
    world_end(&world);
}

static void faults_of_other_memory_always_reach_qemu(void **state)
{
    pthread_t thread;
    World world;
    int64_t copied;
    void *seen;

    (void)state;
    world_open(&world);
    world_register_all(&world);
    assert_int_equal(pthread_create(&thread, NULL, world_touch, world.memory), 0);
    assert_int_equal(world_read_fault(&world, false), (uintptr_t)world.memory);
    /* Somebody waits for QEMU until it has brought the page: that long its stream is not held. */
    PageTableHeader *header = world.listen->plan->table.header;
    header->serving = 1;
    header->ahead_ns = clock_ns();
    assert_false(hold_is_due(&world.listen->hold, world.listen->plan, header->ahead_ns));
    assert_int_equal(world_copy(&world, world.memory, PLAN_PAGE, &copied), 0);
    assert_true(hold_is_due(&world.listen->hold, world.listen->plan, header->ahead_ns));
    pthread_join(thread, &seen);
    assert_int_equal(world.faults.native, 1);
    listen_others_wait();
    assert_false(hold_is_due(&world.listen->hold, world.listen->plan, header->ahead_ns));
    world_end(&world);
}

/* The whole decision, with a daemon that is there and reads nothing. */
static void planned_faults_reach_qemu_only_when_they_are_old(void **state)
{
    pthread_t thread;
    World world;
    int64_t copied;
    void *seen;

    (void)state;
    world_open(&world);
    world_register_all(&world);
    PageTableHeader *header = world.listen->plan->table.header;
    header->serving = 1;
    uint8_t *page = plan_range(world.memory, 1);
    assert_int_equal(pthread_create(&thread, NULL, world_touch, page), 0);
    struct pollfd fault = {.events = POLLIN};
    uint64_t piece;
    fault.fd = plan_find(world.listen->plan, (uintptr_t)page, 1, &piece)->uffd;
    assert_int_equal(poll(&fault, 1, 5000), 1);
    uint64_t now = clock_ns();
    /* As long as the daemon reads faults, it is other faults that are there. */
    for (int i = 0; i < 50; i++, now += 10 * CLOCK_MS) {
        header->reads[i % PAGE_TABLE_BUSY]++;
        faults_tick(&world.faults, now, true);
        assert_int_equal(header->relaying, 0);
    }
    for (int i = 1; i < 5; i++, now += 10 * CLOCK_MS) {
        faults_tick(&world.faults, now, true);
        assert_int_equal(header->relaying, 0);
    }
    assert_false(world.listen->counts.passed_on);
    faults_tick(&world.faults, now, true);
    assert_int_equal(header->relaying, 1);
    assert_true(world.listen->counts.passed_on);
    assert_int_equal(world_read_fault(&world, true), (uintptr_t)page);
    assert_int_equal(world_copy(&world, page, PLAN_PAGE, &copied), 0);
    pthread_join(thread, &seen);
    for (int i = 0; i < 30; i++, now += 10 * CLOCK_MS)
        faults_tick(&world.faults, now, true);
    assert_int_equal(header->relaying, 0);
    world_end(&world);
}

/* Nothing that was read is lost while QEMU reads nothing. */
static void a_full_proxy_keeps_the_rest(void **state)
{
    enum { FILL = 100000 };
    struct uffd_msg message = {.event = UFFD_EVENT_REMOVE}, got;
    pthread_t thread;
    World world;
    int64_t copied;
    unsigned fill = 0, seen = 0;
    void *result;

    (void)state;
    world_open(&world);
    world_register_all(&world);
    while (fill < FILL && write(world.listen->peer, &message, sizeof message) == sizeof message)
        fill++;
    assert_in_range(fill, 1, FILL - 1);
    assert_int_equal(pthread_create(&thread, NULL, world_touch, plan_range(world.memory, 0)), 0);
    world.faults.relay.relaying = true;
    for (int i = 0; i < 100 && world.faults.n == 0; i++) {
        struct pollfd polls[FAULTS_POLLS];
        size_t n = faults_polls(&world.faults, polls);
        poll(polls, n, 100);
        faults_forward(&world.faults, polls, n);
    }
    assert_int_equal(world.faults.n - world.faults.next, 1);
    struct pollfd full[FAULTS_POLLS];
    assert_int_equal(faults_polls(&world.faults, full), 1);
    assert_int_equal(full[0].events, POLLOUT);
    while (read(world.proxy, &got, sizeof got) == sizeof got)
        seen++;
    assert_int_equal(seen, fill);
    assert_int_equal(world_read_fault(&world, true), (uintptr_t)plan_range(world.memory, 0));
    assert_int_equal(world_copy(&world, plan_range(world.memory, 0), PLAN_PAGE, &copied), 0);
    pthread_join(thread, &result);
    world_end(&world);
}

/* QEMU closes its userfaultfd: whoever waits goes on, also if the daemon holds ours. */
static void the_end_lets_all_memory_go(void **state)
{
    pthread_t thread;
    World world;
    void *seen;
    int held[PLAN_SHARDS];

    (void)state;
    world_open(&world);
    world_register_all(&world);
    for (unsigned i = 0; i < PLAN_SHARDS; i++)
        held[i] = dup(world.listen->plan->uffds[i]);
    assert_int_equal(pthread_create(&thread, NULL, world_touch, plan_range(world.memory, 1)), 0);
    assert_int_equal(world_read_fault(&world, true), (uintptr_t)plan_range(world.memory, 1));
    close(world.proxy);
    struct pollfd polls[FAULTS_POLLS];
    size_t n = faults_polls(&world.faults, polls);
    poll(polls, n, 1000);
    faults_forward(&world.faults, polls, n);
    assert_true(world.faults.gone);
    world.proxy = -1;
    listen_free(world.listen);
    pthread_join(thread, &seen);
    assert_int_equal((uintptr_t)seen, 0);
    for (unsigned i = 0; i < PLAN_SHARDS; i++)
        close(held[i]);
    close(world.wake);
    munmap(world.memory, WORLD_SIZE);
}

static void check_refused(const ClientMessage *message, int table)
{
    Reason reason = {0};

    assert_null(plan_new(message, table, -1, &reason));
    assert_true(reason.text[0] != '\0');
    assert_int_equal(fcntl(table, F_GETFD), -1); /* taken, and closed */
}

static void a_bad_plan_is_refused(void **state)
{
    uint8_t *memory =
        mmap(NULL, WORLD_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    static ClientMessage good, bad;

    (void)state;
    plan_make_message(&good, memory);
    check_refused(&good, plan_make_table(&good, false));
    bad = good;
    bad.plan.table_size += PLAN_PAGE; /* not the table's */
    check_refused(&bad, plan_make_table(&good, true));
    bad = good;
    bad.plan.n_shards--; /* not all is covered */
    check_refused(&bad, plan_make_table(&good, true));
    bad = good;
    bad.plan.shards[0].flags = CLIENT_SHARD_MINOR;
    check_refused(&bad, plan_make_table(&good, true));
    bad = good;
    bad.plan.ranges[1].address = bad.plan.ranges[0].address + PLAN_PAGE; /* overlapping */
    check_refused(&bad, plan_make_table(&good, true));
    bad = good;
    bad.plan.ranges[1].length += PLAN_PAGE; /* the table has another */
    check_refused(&bad, plan_make_table(&good, true));
    bad = good;
    bad.plan.n_ranges = 0;
    bad.plan.n_shards = 0;
    check_refused(&bad, plan_make_table(&good, true));
    munmap(plan_range(memory, 0) + 3 * PLAN_PAGE, PLAN_PAGE);
    check_refused(&good, plan_make_table(&good, true));
    munmap(memory, WORLD_SIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_trial_gets_a_userfaultfd),
        cmocka_unit_test(a_plan_that_is_lost_is_not_used),
        cmocka_unit_test(withdrawing_waits_for_no_ioctl),
        cmocka_unit_test(a_number_that_is_used_again_is_no_proxy),
        cmocka_unit_test(registration_is_divided),
        cmocka_unit_test(memory_that_another_holds_stays_with_qemu),
        cmocka_unit_test(faults_of_other_memory_always_reach_qemu),
        cmocka_unit_test(planned_faults_reach_qemu_only_when_they_are_old),
        cmocka_unit_test(a_full_proxy_keeps_the_rest),
        cmocka_unit_test(the_end_lets_all_memory_go),
        cmocka_unit_test(a_bad_plan_is_refused),
    };

    if (!world_is_allowed())
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
