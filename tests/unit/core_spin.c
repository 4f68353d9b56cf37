/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How long a thread looks before it sleeps, and when it begins again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/core/spin.h"

static void give_up(Spin *spin)
{
    while (spin_budget(spin) > 0)
        spin_learn(spin, false);
}

/* How many sleeps of that length there are until it looks again. */
static unsigned sleeps_until_it_looks(Spin *spin, uint64_t slept_ns)
{
    unsigned n = 0;

    for (; spin_budget(spin) == 0; n++)
        spin_slept(spin, slept_ns);
    return n;
}

static void looking_is_forgiven_and_grows_again(void **state)
{
    Spin spin;

    (void)state;
    spin_init(&spin, 64000);
    give_up(&spin);
    assert_int_equal(sleeps_until_it_looks(&spin, 128000), 64); /* nothing came soon */
    assert_int_equal(spin_budget(&spin), 64000);
    spin_learn(&spin, false);
    spin_learn(&spin, false);
    for (unsigned i = 0; i < 8; i++)
        spin_learn(&spin, true);
    assert_int_equal(spin_budget(&spin), 64000);
    spin_init(&spin, 0);
    assert_int_equal(spin_budget(&spin), 0);
}

static void short_sleeps_make_it_look_again(void **state)
{
    static const unsigned in_vain[] = {2, 4, 8, 16, 32, 64, 64, 64};
    Spin spin;

    (void)state;
    spin_init(&spin, 64000);
    for (unsigned i = 0; i < sizeof in_vain / sizeof in_vain[0]; i++) {
        give_up(&spin);
        assert_int_equal(sleeps_until_it_looks(&spin, 127000), in_vain[i]);
    }
    spin_learn(&spin, true);
    give_up(&spin);
    spin_slept(&spin, 5000);
    spin_slept(&spin, UINT64_MAX); /* not in a row */
    spin_slept(&spin, 5000);
    assert_int_equal(spin_budget(&spin), 0);
    spin_slept(&spin, 5000);
    assert_int_equal(spin_budget(&spin), 64000);
}

static void what_is_worth_looking_follows_the_host(void **state)
{
    (void)state;
    assert_int_equal(spin_worth_us(0), 50); /* not known */
    assert_int_equal(spin_worth_us(5000), 50);
    assert_int_equal(spin_worth_us(6250), 50);
    assert_int_equal(spin_worth_us(6400), 51);
    assert_int_equal(spin_worth_us(12000), 96);
    assert_int_equal(spin_worth_us(62500), 500);
    assert_int_equal(spin_worth_us(62501), 500);
    assert_int_equal(spin_worth_us(UINT64_MAX), 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(looking_is_forgiven_and_grows_again),
        cmocka_unit_test(short_sleeps_make_it_look_again),
        cmocka_unit_test(what_is_worth_looking_follows_the_host),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
