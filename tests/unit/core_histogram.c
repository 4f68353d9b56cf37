/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Percentiles against the exact ones, and the ends of the range.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/core/histogram.h"

enum { SAMPLES = 20000 };

static Histogram histogram;
static uint64_t samples[SAMPLES];

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void assert_near(uint64_t got, unsigned percent)
{
    uint64_t exact = samples[(SAMPLES * percent + 99) / 100 - 1];
    uint64_t error = got > exact ? got - exact : exact - got;

    assert_true(error * 8 <= exact);
}

static void percentiles_are_within_an_eighth(void **state)
{
    unsigned seed = 1;

    (void)state;
    for (unsigned spread = 4; spread <= 38; spread += 2) {
        HistogramSummary summary;
        uint64_t sum = 0;

        memset(&histogram, 0, sizeof histogram);
        for (unsigned i = 0; i < SAMPLES; i++) {
            uint64_t random = (uint64_t)rand_r(&seed) << 31 | (uint64_t)rand_r(&seed);
            samples[i] = random & ((UINT64_C(1) << (1 + (unsigned)rand_r(&seed) % spread)) - 1);
            sum += samples[i];
            histogram_record(&histogram, samples[i]);
        }
        qsort(samples, SAMPLES, sizeof samples[0], compare);
        histogram_summarise(&histogram, &summary);
        assert_int_equal(summary.count, SAMPLES);
        assert_int_equal(summary.sum_ns, sum);
        assert_int_equal(summary.max_ns, samples[SAMPLES - 1]);
        assert_near(summary.p50_ns, 50);
        assert_near(summary.p90_ns, 90);
        assert_near(summary.p99_ns, 99);
    }
}

static void an_empty_one_is_all_zero(void **state)
{
    HistogramSummary summary;

    (void)state;
    memset(&histogram, 0, sizeof histogram);
    histogram_summarise(&histogram, &summary);
    assert_int_equal(summary.count, 0);
    assert_int_equal(summary.p50_ns, 0);
    assert_int_equal(summary.p99_ns, 0);
}

static void octaves_count_what_lies_in_them(void **state)
{
    HistogramSummary summary;

    (void)state;
    memset(&histogram, 0, sizeof histogram);
    for (unsigned octave = 0; octave < HISTOGRAM_OCTAVES; octave++) {
        histogram_record(&histogram, UINT64_C(1) << octave);
        histogram_record(&histogram, (UINT64_C(2) << octave) - 1);
    }
    histogram_summarise(&histogram, &summary);
    for (unsigned octave = 0; octave < HISTOGRAM_OCTAVES; octave++)
        assert_int_equal(summary.octaves[octave], 2);
}

static void what_is_too_long_falls_into_the_last_bucket(void **state)
{
    HistogramSummary summary;

    (void)state;
    memset(&histogram, 0, sizeof histogram);
    histogram_record(&histogram, UINT64_MAX);
    histogram_summarise(&histogram, &summary);
    assert_int_equal(summary.count, 1);
    assert_int_equal(summary.max_ns, UINT64_MAX);
    assert_int_equal(summary.octaves[HISTOGRAM_OCTAVES - 1], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_are_within_an_eighth),
        cmocka_unit_test(an_empty_one_is_all_zero),
        cmocka_unit_test(octaves_count_what_lies_in_them),
        cmocka_unit_test(what_is_too_long_falls_into_the_last_bucket),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
