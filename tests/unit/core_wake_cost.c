/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a wake-up takes is measured, on one CPU and on more, and no descriptor is left.
 */
#include <dirent.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "daemon/core/clock.h"
#include "daemon/core/wake_cost.h"

static unsigned open_files(void)
{
    DIR *stream = opendir("/proc/self/fd");
    unsigned n = 0;

    assert_non_null(stream);
    while (readdir(stream))
        n++;
    closedir(stream);
    return n;
}

static long sleeps(void)
{
    struct rusage usage;

    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_nvcsw;
}

static void measure(void)
{
    unsigned fds = open_files();
    long slept = sleeps();
    uint64_t before = clock_ns(), cost = wake_cost_ns();
    uint64_t took = clock_ns() - before;

    for (unsigned i = 0; i < 100 && cost == 0; i++) /* a host that is busy with something else */
        cost = wake_cost_ns();
    assert_true(cost > 0);
    assert_true(sleeps() > slept + 4); /* really slept, */
    assert_true(cost * 2 <= took);     /* and a round is no longer than all of them */
    assert_int_equal(open_files(), fds);
}

static void a_wake_up_is_measured(void **state)
{
    cpu_set_t all, now, one;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    for (unsigned i = 0; i < 32; i++) {
        measure();
        assert_int_equal(sched_getaffinity(0, sizeof now, &now), 0);
        assert_true(CPU_EQUAL(&now, &all)); /* the caller's own stay what they were */
    }
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    measure();
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
}

/* As where the limit of open files is reached. */
static void without_descriptors_nothing_is_known(void **state)
{
    struct rlimit limit, none;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(wake_cost_ns(), 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    measure();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wake_up_is_measured),
        cmocka_unit_test(without_descriptors_nothing_is_known),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
