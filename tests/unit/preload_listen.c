/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QEMU's side of a plan: what it opens, registers and places, and where faults go. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/lib/uffd.h"
#include "client/qemu/clock.h"
#include "client/qemu/faults.h"
#include "client/qemu/listen.h"
#include "tests/unit/preload_plan.h"

enum { SIZE = PLAN_ALL * PLAN_PAGE };

static uint8_t content[4 * PLAN_PAGE] __attribute__((aligned(PLAN_PAGE)));

typedef struct World {
    int wake;
    int proxy;
    uint8_t *memory;
    Listen *listen;
    Faults faults;
} World;

static int open_native(int flags)
{
    int uffd = (int)syscall(SYS_userfaultfd, flags);

    assert_true(uffd >= 0);
    return listen_opened(uffd, flags);
}

static void plan(World *world)
{
    static ClientMessage message;
    Reason reason = {0};
    Plan *made;

    memset(world, 0, sizeof *world);
    memset(content, 'q', sizeof content);
    world->proxy = -1;
    world->memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(world->memory != MAP_FAILED);
    madvise(world->memory, SIZE, MADV_NOHUGEPAGE);
    world->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    plan_make_message(&message, world->memory);
    made = plan_new(&message, plan_make_table(&message, true), -1, &reason);
    if (!made)
        fail_msg("%s", reason.text);
    world->listen = listen_new(made, world->wake);
    assert_non_null(world->listen);
    faults_init(&world->faults, world->listen);
}

static void open_proxy(World *world)
{
    struct uffdio_api api = {.api = UFFD_API};
    struct pollfd polls[FAULTS_POLLS];

    plan(world);
    world->proxy = open_native(O_CLOEXEC | O_NONBLOCK);
    assert_true(listen_owns(world->proxy));
    /* Until QEMU says which interface it wants, there is nothing to wait for. */
    assert_int_equal(faults_polls(&world->faults, polls), 1);
    assert_int_equal(listen_ioctl(world->proxy, UFFDIO_API, &api), 0);
    assert_true(api.ioctls & UINT64_C(1) << _UFFDIO_REGISTER);
    assert_int_equal(faults_polls(&world->faults, polls), 2);
}

static void end(World *world)
{
    listen_free(world->listen);
    assert_false(listen_owns(world->proxy));
    if (world->proxy >= 0)
        close(world->proxy);
    close(world->wake);
    munmap(world->memory, SIZE);
}

static int register_memory(World *world, void *start, size_t length, uint64_t *ret_ioctls)
{
    struct uffdio_register wanted = {
        .range = {.start = (uintptr_t)start, .len = length},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    int result = listen_ioctl(world->proxy, UFFDIO_REGISTER, &wanted);

    *ret_ioctls = wanted.ioctls;
    return result;
}

static void register_all(World *world)
{
    uint64_t ioctls;

    assert_int_equal(register_memory(world, world->memory, SIZE, &ioctls), 0);
    assert_true(ioctls & UINT64_C(1) << _UFFDIO_COPY);
    assert_true(ioctls & UINT64_C(1) << _UFFDIO_ZEROPAGE);
    assert_int_equal(listen_registered(world->listen), PLAN_SHARDS);
    assert_true(world->listen->complete);
    assert_true(world->listen->registered_at > 0);
}

/* As QEMU places pages; its result is the ioctl()'s. */
static int copy(World *world, const void *to, size_t length, int64_t *ret_copied)
{
    struct uffdio_copy wanted = {.dst = (uintptr_t)to, .src = (uintptr_t)content, .len = length};
    int result = listen_ioctl(world->proxy, UFFDIO_COPY, &wanted);

    *ret_copied = wanted.copy;
    return result;
}

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

static void *touch(void *address)
{
    return (void *)(uintptr_t) * (volatile uint8_t *)address;
}

/* The fault that QEMU reads from the proxy, within a second; 0: none. */
static uint64_t read_fault(World *world, bool relaying)
{
    struct pollfd polls[FAULTS_POLLS];
    struct uffd_msg message;

    world->faults.relay.relaying = relaying;
    for (int i = 0; i < 100; i++) {
        size_t n = faults_polls(&world->faults, polls);
        poll(polls, n, 10);
        faults_forward(&world->faults, polls, n);
        if (read(world->proxy, &message, sizeof message) == sizeof message) {
            assert_int_equal(message.event, UFFD_EVENT_PAGEFAULT);
            return message.arg.pagefault.address & ~(uint64_t)(PLAN_PAGE - 1);
        }
        assert_int_equal(errno, EAGAIN);
    }
    return 0;
}

static void a_trial_gets_a_userfaultfd(void **state)
{
    World world;
    int uffd;

    (void)state;
    plan(&world);
    uffd = open_native(O_CLOEXEC);
    assert_false(listen_owns(uffd));
    close(uffd);
    world.proxy = open_native(O_CLOEXEC | O_NONBLOCK);
    assert_true(listen_owns(world.proxy));
    assert_true(fcntl(world.proxy, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(world.proxy, F_GETFD) & FD_CLOEXEC);
    /* A second one while the first is open is none of ours. */
    uffd = open_native(O_CLOEXEC | O_NONBLOCK);
    assert_false(listen_owns(uffd));
    close(uffd);
    end(&world);
}

static void a_plan_that_is_lost_is_not_used(void **state)
{
    uint64_t ioctls;
    World world;
    int uffd;

    (void)state;
    plan(&world);
    assert_false(listen_withdraw(world.listen));
    uffd = open_native(O_CLOEXEC | O_NONBLOCK);
    assert_false(listen_owns(uffd));
    close(uffd);
    end(&world);

    /* Between the open and the registration: the native uffd has it all. */
    open_proxy(&world);
    assert_true(listen_withdraw(world.listen));
    assert_int_equal(register_memory(&world, world.memory, SIZE, &ioctls), 0);
    assert_int_equal(listen_registered(world.listen), 0);
    assert_false(world.listen->complete);
    end(&world);
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
    open_proxy(&world);
    assert_ptr_equal(listen_hold(), world.listen);
    assert_int_equal(pthread_create(&thread, NULL, withdraw, &world), 0);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 5;
    assert_int_equal(pthread_timedjoin_np(thread, NULL, &until), 0);
    assert_true(world.listen->lost);
    listen_release();
    end(&world);
}

static void a_number_that_is_used_again_is_no_proxy(void **state)
{
    Reason reason = {0};
    World world;
    int uffd, old;

    (void)state;
    open_proxy(&world);
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
    end(&world);
}

static void registration_is_divided(void **state)
{
    uint64_t ioctls;
    World world;

    (void)state;
    open_proxy(&world);
    /* Half of a planned range is not what was planned. */
    assert_int_equal(register_memory(&world, plan_range(world.memory, 0), 4 * PLAN_PAGE, &ioctls),
                     0);
    assert_int_equal(listen_registered(world.listen), 0);
    struct uffdio_range half = {.start = (uintptr_t)plan_range(world.memory, 0),
                                .len = 4 * PLAN_PAGE};
    assert_int_equal(listen_ioctl(world.proxy, UFFDIO_UNREGISTER, &half), 0);
    register_all(&world);
    struct uffdio_range all = {.start = (uintptr_t)world.memory, .len = SIZE};
    assert_int_equal(listen_ioctl(world.proxy, UFFDIO_UNREGISTER, &all), 0);
    assert_int_equal(listen_registered(world.listen), 0);
    assert_int_equal(world.memory[0] + plan_range(world.memory, 1)[0], 0);
    end(&world);
}

static void memory_that_another_holds_stays_with_qemu(void **state)
{
    Reason reason = {0};
    uint64_t ioctls;
    World world;
    int other;

    (void)state;
    open_proxy(&world);
    other = uffd_open(-1, 0, &reason);
    /* In the last shard of range 0, so that the first one has to be undone. */
    assert_int_equal(uffd_register(other, plan_range(world.memory, 0) + PLAN_PAGES / 2 * PLAN_PAGE,
                                   PLAN_PAGE, UFFDIO_REGISTER_MODE_MISSING, &reason),
                     0);
    assert_int_equal(
        register_memory(&world, plan_range(world.memory, 0), PLAN_PAGES * PLAN_PAGE, &ioctls), -1);
    assert_int_equal(errno, EBUSY); /* as the kernel says without us */
    assert_int_equal(listen_registered(world.listen), 0);
    close(other);
    register_all(&world);
    end(&world);
}

static void placing_goes_by_address(void **state)
{
    World world;
    int64_t copied;

    (void)state;
    open_proxy(&world);
    register_all(&world);
    serve(&world, 1, 7, 'd');
    assert_int_equal(copy(&world, plan_range(world.memory, 1) + 7 * PLAN_PAGE, PLAN_PAGE, &copied),
                     0);
    assert_int_equal(copied, PLAN_PAGE);
    assert_int_equal(plan_range(world.memory, 1)[7 * PLAN_PAGE], 'd');
    assert_int_equal(state_of(&world, 1, 7), PAGE_PRESENT);
    /* Unplanned memory, and a page twice there, as without us. */
    assert_int_equal(copy(&world, world.memory, PLAN_PAGE, &copied), 0);
    assert_int_equal(copy(&world, world.memory, PLAN_PAGE, &copied), -1);
    assert_int_equal(errno, EEXIST);
    assert_int_equal(copied, -EEXIST);
    assert_int_equal(world.listen->counts.placed, 0);
    assert_int_equal(world.listen->counts.there, 1);
    end(&world);
}

static void one_call_may_cross_from_one_to_another(void **state)
{
    const unsigned middle = PLAN_PAGES / 2;
    uint8_t *range;
    World world;
    int64_t copied;

    (void)state;
    open_proxy(&world);
    register_all(&world);
    /* Two shards, with a page in the middle of each part that is there. */
    range = plan_range(world.memory, 0);
    serve(&world, 0, middle - 1, 'd');
    serve(&world, 0, middle, 'e');
    assert_int_equal(copy(&world, range + (middle - 2) * PLAN_PAGE, 4 * PLAN_PAGE, &copied), 0);
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
    end(&world);
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
    open_proxy(&world);
    register_all(&world);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *page = plan_range(world.memory, 1) + (size_t)i * PLAN_PAGE;

        put(&world, 1, i, 's');
        plan_set_state(world.listen->plan, 1, i, states[i]);
        assert_int_equal(copy(&world, page, PLAN_PAGE, &copied), -1);
        assert_int_equal(errno, EEXIST);
        assert_int_equal(copied, -EEXIST);
        assert_int_equal(state_of(&world, 1, i), states[i]);
    }
    /* What comes before such a page is placed, as the kernel does. */
    put(&world, 1, n + 1, 's');
    assert_int_equal(
        copy(&world, plan_range(world.memory, 1) + (size_t)n * PLAN_PAGE, 2 * PLAN_PAGE, &copied),
        -1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(copied, PLAN_PAGE);
    assert_int_equal(world.listen->counts.there, 0);
    /* What was found and went again is QEMU's to bring. */
    plan_set_state(world.listen->plan, 1, n + 2, PAGE_FOUND);
    assert_int_equal(
        copy(&world, plan_range(world.memory, 1) + (size_t)(n + 2) * PLAN_PAGE, PLAN_PAGE, &copied),
        0);
    assert_int_equal(state_of(&world, 1, n + 2), PAGE_PRESENT);
    end(&world);
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
    open_proxy(&world);
    register_all(&world);
    put(&world, 0, 0, 's');
    plan_set_state(world.listen->plan, 0, 0, PAGE_RECEIVED);
    assert_int_equal(pthread_create(&thread, NULL, finds, &world), 0);
    assert_int_equal(copy(&world, plan_range(world.memory, 0), PLAN_PAGE, &copied), -1);
    assert_int_equal(copied, -EEXIST);
    pthread_join(thread, NULL);
    /* One that died right there placed it, in all likelihood; it is waited for once. */
    for (unsigned page = 1; page < 5; page++) {
        put(&world, 0, page, 'd');
        plan_set_state(world.listen->plan, 0, page, PAGE_RECEIVED);
    }
    begin = clock_ns();
    assert_int_equal(copy(&world, plan_range(world.memory, 0) + PLAN_PAGE, 4 * PLAN_PAGE, &copied),
                     0);
    assert_in_range(clock_ns() - begin, 50 * CLOCK_MS, 150 * CLOCK_MS);
    end(&world);
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
    open_proxy(&world);
    register_all(&world);
    uint8_t *page = plan_range(world.memory, 0) + 5 * PLAN_PAGE;
    assert_int_equal(pthread_create(&thread, NULL, touch, page), 0);
    assert_int_equal(read_fault(&world, true), (uintptr_t)page);
    struct uffdio_copy quiet = {.dst = (uintptr_t)page,
                                .src = (uintptr_t)content,
                                .len = PLAN_PAGE,
                                .mode = UFFDIO_COPY_MODE_DONTWAKE};
    assert_int_equal(listen_ioctl(world.proxy, UFFDIO_COPY, &quiet), 0);
    world.listen->counts.passed_on = true;
    assert_int_equal(copy(&world, page, PLAN_PAGE, &copied), 0);
    pthread_join(thread, &seen);
    assert_int_equal((uintptr_t)seen, 'q');
    end(&world);
}

static void faults_of_other_memory_always_reach_qemu(void **state)
{
    pthread_t thread;
    World world;
    int64_t copied;
    void *seen;

    (void)state;
    open_proxy(&world);
    register_all(&world);
    assert_int_equal(pthread_create(&thread, NULL, touch, world.memory), 0);
    assert_int_equal(read_fault(&world, false), (uintptr_t)world.memory);
    assert_int_equal(copy(&world, world.memory, PLAN_PAGE, &copied), 0);
    pthread_join(thread, &seen);
    assert_int_equal(world.faults.native, 1);
    end(&world);
}

/* The whole decision, with a daemon that is there and reads nothing. */
static void planned_faults_reach_qemu_only_when_they_are_old(void **state)
{
    pthread_t thread;
    World world;
    int64_t copied;
    void *seen;

    (void)state;
    open_proxy(&world);
    register_all(&world);
    PageTableHeader *header = world.listen->plan->table.header;
    header->serving = 1;
    uint8_t *page = plan_range(world.memory, 1);
    assert_int_equal(pthread_create(&thread, NULL, touch, page), 0);
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
    assert_int_equal(read_fault(&world, true), (uintptr_t)page);
    assert_int_equal(copy(&world, page, PLAN_PAGE, &copied), 0);
    pthread_join(thread, &seen);
    for (int i = 0; i < 30; i++, now += 10 * CLOCK_MS)
        faults_tick(&world.faults, now, true);
    assert_int_equal(header->relaying, 0);
    end(&world);
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
    open_proxy(&world);
    register_all(&world);
    while (fill < FILL && write(world.listen->peer, &message, sizeof message) == sizeof message)
        fill++;
    assert_in_range(fill, 1, FILL - 1);
    assert_int_equal(pthread_create(&thread, NULL, touch, plan_range(world.memory, 0)), 0);
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
    assert_int_equal(read_fault(&world, true), (uintptr_t)plan_range(world.memory, 0));
    assert_int_equal(copy(&world, plan_range(world.memory, 0), PLAN_PAGE, &copied), 0);
    pthread_join(thread, &result);
    end(&world);
}

/* QEMU closes its userfaultfd: whoever waits goes on, also if the daemon holds ours. */
static void the_end_lets_all_memory_go(void **state)
{
    pthread_t thread;
    World world;
    void *seen;
    int held[PLAN_SHARDS];

    (void)state;
    open_proxy(&world);
    register_all(&world);
    for (unsigned i = 0; i < PLAN_SHARDS; i++)
        held[i] = dup(world.listen->plan->uffds[i]);
    assert_int_equal(pthread_create(&thread, NULL, touch, plan_range(world.memory, 1)), 0);
    assert_int_equal(read_fault(&world, true), (uintptr_t)plan_range(world.memory, 1));
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
    munmap(world.memory, SIZE);
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
    uint8_t *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
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
    munmap(memory, SIZE);
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
        cmocka_unit_test(placing_goes_by_address),
        cmocka_unit_test(one_call_may_cross_from_one_to_another),
        cmocka_unit_test(what_nobody_placed_is_an_error),
        cmocka_unit_test(what_the_daemon_is_placing_is_waited_for),
        cmocka_unit_test(who_waits_is_woken_by_a_page_that_is_there),
        cmocka_unit_test(faults_of_other_memory_always_reach_qemu),
        cmocka_unit_test(planned_faults_reach_qemu_only_when_they_are_old),
        cmocka_unit_test(a_full_proxy_keeps_the_rest),
        cmocka_unit_test(the_end_lets_all_memory_go),
        cmocka_unit_test(a_bad_plan_is_refused),
    };
    Reason reason = {0};
    int uffd = uffd_open(-1, 0, &reason);

    if (uffd < 0)
        return 77; /* not allowed here */
    close(uffd);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
