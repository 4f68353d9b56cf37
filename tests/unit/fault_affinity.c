/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where resolvers run: which CPUs they take from which vCPUs, and whose threads are looked at. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/fault/affinity.h"

static cpu_set_t set(unsigned bits)
{
    cpu_set_t cpus;

    CPU_ZERO(&cpus);
    for (unsigned i = 0; i < 8; i++)
        if (bits >> i & 1)
            CPU_SET(i, &cpus);
    return cpus;
}

/* The CPUs that a resolver of n should keep to, of vCPUs with these; 0: none in particular. */
static unsigned chosen(const unsigned *vcpus, unsigned n_vcpus, unsigned resolver, unsigned n,
                       bool home)
{
    cpu_set_t allowed = set(0xff), cpus[8], result;
    unsigned bits = 0;

    for (unsigned i = 0; i < n_vcpus; i++)
        cpus[i] = set(vcpus[i]);
    if (!affinity_choose(&allowed, cpus, n_vcpus, resolver, n, home, &result))
        return 0;
    for (unsigned i = 0; i < 8; i++)
        bits |= CPU_ISSET(i, &result) ? 1u << i : 0;
    return bits;
}

static void test_nobody_is_restricted(void **state)
{
    static const unsigned free[] = {0xff, 0xff};

    (void)state;
    assert_int_equal(chosen(free, 2, 0, 1, false), 0);
    assert_int_equal(chosen(free, 2, 1, 2, true), 0);
    assert_int_equal(chosen(free, 0, 0, 1, false), 0);
    assert_int_equal(chosen(free, 1, 1, 2, true), 0); /* home of no vCPU */
}

static void test_one_resolver_follows_all(void **state)
{
    static const unsigned apart[] = {0x01, 0x06}, one_free[] = {0x01, 0xff};

    (void)state;
    assert_int_equal(chosen(apart, 2, 0, 1, false), 0x07);
    assert_int_equal(chosen(apart, 2, 0, 1, true), 0x07);
    assert_int_equal(chosen(one_free, 2, 0, 1, false), 0);
}

static void test_several_follow_what_all_share(void **state)
{
    static const unsigned alike[] = {0x0c, 0x0c, 0x0c}, apart[] = {0x0c, 0x0c, 0x04};

    (void)state;
    assert_int_equal(chosen(alike, 3, 0, 2, false), 0x0c);
    assert_int_equal(chosen(alike, 3, 1, 2, false), 0x0c);
    assert_int_equal(chosen(apart, 3, 0, 2, false), 0);
    assert_int_equal(chosen(apart, 3, 1, 2, false), 0);
}

static void test_homes_follow_their_own(void **state)
{
    static const unsigned vcpus[] = {0x01, 0x02, 0x04, 0xff};

    (void)state;
    assert_int_equal(chosen(vcpus, 4, 0, 2, true), 0x05);
    assert_int_equal(chosen(vcpus, 4, 1, 2, true), 0); /* one of its own may go anywhere */
    assert_int_equal(chosen(vcpus, 3, 1, 2, true), 0x02);
}

typedef struct Pinned {
    pthread_barrier_t *barrier;
    cpu_set_t cpus;
    uint32_t tid;
} Pinned;

static void *run_pinned(void *argument)
{
    Pinned *self = argument;

    self->tid = (uint32_t)gettid();
    sched_setaffinity(0, sizeof self->cpus, &self->cpus);
    pthread_barrier_wait(self->barrier);
    pthread_barrier_wait(self->barrier);
    return NULL;
}

static unsigned first_cpu(const cpu_set_t *cpus)
{
    unsigned cpu = 0;

    while (!CPU_ISSET(cpu, cpus))
        cpu++;
    return cpu;
}

static void test_threads_of_a_process(void **state)
{
    pthread_barrier_t barrier;
    Pinned pinned = {.barrier = &barrier};
    cpu_set_t allowed, others, cpus[3];
    uint32_t tids[3];
    pthread_t thread;
    VcpuTable *table;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    CPU_ZERO(&pinned.cpus);
    CPU_SET(first_cpu(&allowed), &pinned.cpus);
    CPU_XOR(&others, &allowed, &pinned.cpus);
    pthread_barrier_init(&barrier, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, run_pinned, &pinned), 0);
    pthread_barrier_wait(&barrier);
    /* A thread of ours, one of another process, and ourselves, who may go anywhere. */
    memcpy(tids, (uint32_t[]){pinned.tid, (uint32_t)getppid(), (uint32_t)gettid()}, sizeof tids);
    table = vcpu_table_new(tids, 3, NULL);
    assert_non_null(table);
    affinity_read(getpid(), table, &allowed, cpus);
    assert_true(CPU_EQUAL(&cpus[0], &pinned.cpus));
    assert_true(CPU_EQUAL(&cpus[1], &allowed));
    assert_true(CPU_EQUAL(&cpus[2], &allowed));
    if (CPU_COUNT(&others) > 0) { /* where it runs is closed to us: nothing to follow */
        affinity_read(getpid(), table, &others, cpus);
        assert_true(CPU_EQUAL(&cpus[0], &others));
    }
    affinity_read(-1, table, &allowed, cpus);
    assert_true(CPU_EQUAL(&cpus[0], &allowed));
    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);
    pthread_barrier_destroy(&barrier);
    vcpu_table_free(table);
}

static void test_cores_to_look(void **state)
{
    (void)state;
    assert_int_equal(affinity_cores_wanted(8, 4, false), 13);
    assert_int_equal(affinity_cores_wanted(8, 4, true), 14);
    assert_int_equal(affinity_cores_wanted(1, 1, false), 3);
    assert_int_equal(affinity_cores_wanted(0, 1, false), 3); /* it runs all the same */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_is_restricted),
        cmocka_unit_test(test_one_resolver_follows_all),
        cmocka_unit_test(test_several_follow_what_all_share),
        cmocka_unit_test(test_homes_follow_their_own),
        cmocka_unit_test(test_threads_of_a_process),
        cmocka_unit_test(test_cores_to_look),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
