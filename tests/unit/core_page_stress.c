/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Everybody at the page table at once: vCPUs fault, streams claim runs, the map comes in, a placer
 * finishes.  Each page is fetched exactly once, nobody who waits is forgotten, and whoever finds
 * the table complete is right.
 *
 * A vCPU models the kernel: it sleeps before its fault is read, and only a wake of its page makes
 * it go on; the state of the page does not.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "daemon/core/page_table.h"
#include "tests/unit/core_regions.h"

enum {
    PAGES = 1000,
    ROUNDS = 200,
    VCPUS = 3,
    STREAMS = 2,
    MAPPED_OF_8 = 6, /* of eight pages in a row so many have content */
    PATIENCE_S = 30,
};

typedef struct Job {
    uint32_t page;
    bool wake;
} Job;

typedef struct Vcpu {
    pthread_mutex_t lock;
    pthread_cond_t woken_cond;
    bool asleep, woken;
    uint64_t page;
    unsigned seed;
    uint64_t waits;
    bool forgotten;
} Vcpu;

static PageTable table;
static Vcpu vcpus[VCPUS];
static _Atomic int fetched[PAGES];
static Job jobs[2 * PAGES];
static _Atomic int job_ready[2 * PAGES];
static _Atomic unsigned n_jobs;
static _Atomic bool stop;
static _Atomic unsigned wrong_completions, wrong_zeroes;

static bool has_content(uint64_t page)
{
    return page % 8 < MAPPED_OF_8;
}

static void wake_page(uint64_t page)
{
    for (unsigned i = 0; i < VCPUS; i++) {
        Vcpu *vcpu = &vcpus[i];
        pthread_mutex_lock(&vcpu->lock);
        if (vcpu->asleep && vcpu->page == page) {
            vcpu->woken = true;
            pthread_cond_signal(&vcpu->woken_cond);
        }
        pthread_mutex_unlock(&vcpu->lock);
    }
}

/* Hands a claimed page to the placer. */
static void fetch(uint64_t page, bool wake)
{
    unsigned at = atomic_fetch_add(&n_jobs, 1);

    atomic_fetch_add(&fetched[page], 1);
    if (at >= 2 * PAGES)
        return;
    jobs[at] = (Job){.page = (uint32_t)page, .wake = wake};
    atomic_store(&job_ready[at], 1);
}

static void on_waited(void *user, uint32_t region, uint64_t page)
{
    (void)region;
    (void)page;
    *(bool *)user = true;
}

static void place(uint64_t page, bool wake)
{
    page_table_finish(&table, 0, page, 1, on_waited, &wake);
    if (wake)
        wake_page(page);
}

static void *run_placer(void *argument)
{
    unsigned at = 0;

    (void)argument;
    while (at < 2 * PAGES && !(atomic_load(&stop) && at == atomic_load(&n_jobs))) {
        if (!atomic_load(&job_ready[at])) {
            sched_yield();
            continue;
        }
        place(jobs[at].page, jobs[at].wake);
        at++;
    }
    return NULL;
}

static void fall_asleep(Vcpu *vcpu, uint64_t page)
{
    pthread_mutex_lock(&vcpu->lock);
    vcpu->asleep = true;
    vcpu->woken = false;
    vcpu->page = page;
    pthread_mutex_unlock(&vcpu->lock);
}

static void wait_for_wake(Vcpu *vcpu)
{
    struct timespec until;
    int error = 0;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    pthread_mutex_lock(&vcpu->lock);
    while (!vcpu->woken && !error)
        error = pthread_cond_timedwait(&vcpu->woken_cond, &vcpu->lock, &until);
    vcpu->forgotten = vcpu->forgotten || !vcpu->woken;
    vcpu->asleep = false;
    pthread_mutex_unlock(&vcpu->lock);
}

static void resolve(Vcpu *vcpu, uint64_t page)
{
    switch (page_table_claim_fault(&table, 0, page)) {
    case PAGE_CLAIM_FETCH:
        fetch(page, true);
        break;
    case PAGE_CLAIM_ZERO:
        atomic_fetch_add(&fetched[page], 1);
        if (has_content(page))
            atomic_fetch_add(&wrong_zeroes, 1);
        place(page, true);
        break;
    case PAGE_CLAIM_WAIT:
        vcpu->waits++;
        break;
    case PAGE_CLAIM_PRESENT:
    case PAGE_CLAIM_REMOVED:
        wake_page(page);
        break;
    }
}

static void *run_vcpu(void *argument)
{
    Vcpu *vcpu = argument;

    for (unsigned i = 0; i < PAGES && !vcpu->forgotten; i++) {
        uint64_t page = (i + (uint64_t)rand_r(&vcpu->seed) % 16) % PAGES; /* near each other */
        fall_asleep(vcpu, page);
        resolve(vcpu, page);
        wait_for_wake(vcpu);
    }
    return NULL;
}

static void *run_map(void *argument)
{
    (void)argument;
    for (uint64_t page = 0; page < PAGES; page += 8) {
        page_table_mark_missing(&table, 0, page, MAPPED_OF_8);
        if (page % 64 == 0)
            sched_yield();
    }
    page_table_set(&table, PAGE_TABLE_MAP_COMPLETE);
    return NULL;
}

/* Looked for in this order by the stream of an import. */
static bool is_complete(void)
{
    return page_table_has(&table, PAGE_TABLE_MAP_COMPLETE) &&
           page_table_find_missing(&table, 0, 0, PAGES) == PAGES &&
           atomic_load(&table.unresolved) == 0;
}

static void check_complete(void)
{
    for (uint64_t page = 0; page < PAGES; page++)
        if (has_content(page) && page_table_get(&table, 0, page) != PAGE_PRESENT)
            atomic_fetch_add(&wrong_completions, 1);
}

static void *run_stream(void *argument)
{
    unsigned seed = *(unsigned *)argument;

    while (!is_complete()) {
        uint64_t from = (uint64_t)rand_r(&seed) % PAGES;
        uint64_t page = page_table_find_missing(&table, 0, from, PAGES);
        uint64_t n = page < PAGES
                         ? page_table_claim_run(&table, 0, page, 1 + (uint64_t)rand_r(&seed) % 40)
                         : 0;
        for (uint64_t i = 0; i < n; i++)
            fetch(page + i, false);
        if (n == 0)
            sched_yield();
    }
    check_complete();
    return NULL;
}

static void prepare(unsigned round)
{
    RegionSet regions = {0};

    add_region(&regions, PAGES, 4096, -1);
    assert_int_equal(page_table_create(&table, &regions), 0);
    atomic_store(&n_jobs, 0);
    atomic_store(&stop, false);
    for (unsigned i = 0; i < PAGES; i++)
        atomic_store(&fetched[i], 0);
    for (unsigned i = 0; i < 2 * PAGES; i++)
        atomic_store(&job_ready[i], 0);
    for (unsigned i = 0; i < VCPUS; i++)
        vcpus[i].seed = round * VCPUS + i + 1;
}

static void run_threads(unsigned round)
{
    pthread_t threads[VCPUS + STREAMS + 1], placer;
    unsigned seeds[STREAMS];

    pthread_create(&placer, NULL, run_placer, NULL);
    for (unsigned i = 0; i < VCPUS; i++)
        pthread_create(&threads[i], NULL, run_vcpu, &vcpus[i]);
    for (unsigned i = 0; i < STREAMS; i++) {
        seeds[i] = round * STREAMS + i + 1000;
        pthread_create(&threads[VCPUS + i], NULL, run_stream, &seeds[i]);
    }
    pthread_create(&threads[VCPUS + STREAMS], NULL, run_map, NULL);
    for (unsigned i = 0; i < VCPUS + STREAMS + 1; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&stop, true);
    pthread_join(placer, NULL);
}

static void check_round(void)
{
    for (unsigned i = 0; i < VCPUS; i++)
        assert_false(vcpus[i].forgotten);
    for (uint64_t page = 0; page < PAGES; page++) {
        bool present = page_table_get(&table, 0, page) == PAGE_PRESENT;
        assert_int_equal(atomic_load(&fetched[page]), present ? 1 : 0);
        assert_true(present || !has_content(page));
    }
    assert_int_equal(atomic_load(&table.unresolved), 0);
    assert_int_equal(atomic_load(&wrong_completions), 0);
    assert_int_equal(atomic_load(&wrong_zeroes), 0);
}

static void each_page_is_fetched_once_and_no_waiter_is_forgotten(void **state)
{
    uint64_t waits = 0;

    (void)state;
    for (unsigned i = 0; i < VCPUS; i++) {
        pthread_mutex_init(&vcpus[i].lock, NULL);
        pthread_cond_init(&vcpus[i].woken_cond, NULL);
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        prepare(round);
        run_threads(round);
        check_round();
        page_table_deinit(&table);
    }
    for (unsigned i = 0; i < VCPUS; i++)
        waits += vcpus[i].waits;
    print_message("%llu faults waited for somebody else's fetch\n", (unsigned long long)waits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_page_is_fetched_once_and_no_waiter_is_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
