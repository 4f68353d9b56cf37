/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "protocol/rate_text.h"

static void assert_rate(const char *text, uint64_t expected)
{
    uint64_t rate = 1;

    assert_int_equal(rate_from_text(text, &rate), 0);
    assert_int_equal(rate, expected);
}

static void rates_are_read(void **state)
{
    (void)state;
    assert_rate("none", 0);
    assert_rate("65536", 65536);
    assert_rate("64K", 65536);
    assert_rate("64k", 65536);
    assert_rate("20M", 20 << 20);
    assert_rate("20MB", 20 << 20);
    assert_rate("20MiB", 20 << 20);
    assert_rate("1.5G", UINT64_C(3) << 29);
    assert_rate("1T", UINT64_C(1) << 40);
    assert_rate("1Gbit", 125000000);
    assert_rate("2.5Gbit", 312500000);
    assert_rate("100Mbit", 12500000);
    assert_rate("1000kbit", 125000);
    assert_rate("8000000bit", 1000000);
}

static void nonsense_is_refused(void **state)
{
    static const char *const texts[] = {"",      "M",    ".",   "-1",   "1Q",      "20 M", "1..5M",
                                        "none ", "0x10", "1e9", "20MM", "20Mbits", "1Gib", "20M/s"};
    uint64_t rate;

    (void)state;
    for (unsigned i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_int_equal(rate_from_text(texts[i], &rate), -EINVAL);
}

static void bounds_are_kept(void **state)
{
    static const char *const texts[] = {"0",
                                        "1",
                                        "65535",
                                        "63.9K",
                                        "1.001T",
                                        "2T",
                                        "99999999999999999999999999999999",
                                        "99999999999999999999T",
                                        "500kbit"};
    uint64_t rate;

    (void)state;
    for (unsigned i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_int_equal(rate_from_text(texts[i], &rate), -ERANGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_are_read),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(bounds_are_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
