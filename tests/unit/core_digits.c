/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/core/digits.h"

static void numbers_end_where_they_should(void **state)
{
    const char *text = "7f00-FFffffffffffffff 18446744073709551615]0\n";
    uint64_t number;

    (void)state;
    assert_true(digits_take(&text, 16, "-", &number));
    assert_int_equal(number, 0x7f00);
    assert_true(digits_take(&text, 16, " ", &number));
    assert_int_equal(number, UINT64_MAX);
    assert_true(digits_take(&text, 10, "\n]", &number));
    assert_int_equal(number, UINT64_MAX);
    assert_true(digits_take(&text, 10, " \n", &number));
    assert_int_equal(number, 0);
    assert_string_equal(text, "");
}

static void what_is_no_number_changes_nothing(void **state)
{
    static const char *const wrong[] = {
        "",   " ",   "5",    " 5 ", "-5 ", "+5 ",
        "5a", "5x ", "0x5 ", "5\n", "a ",  "18446744073709551616 ",
    };

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        const char *text = wrong[i];
        uint64_t number = 77;

        assert_false(digits_take(&text, 10, " ", &number));
        assert_ptr_equal(text, wrong[i]);
        assert_int_equal(number, 77);
    }
}

static void bytes_are_two_digits_each(void **state)
{
    static const char *const wrong[] = {"",       "0",      "00fF8",  "00fF800", "00fF8 ",
                                        "00fF8g", "00 fF8", "00fF8:", "0x00fF"};
    const uint8_t expected[] = {0x00, 0xff, 0x80};
    const char *text = "00fF80:1";
    uint8_t bytes[3];

    (void)state;
    assert_true(digits_to_bytes("00fF80", bytes, sizeof bytes));
    assert_memory_equal(bytes, expected, sizeof bytes);
    assert_false(digits_to_bytes("00fF8000", bytes, sizeof bytes));
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_false(digits_to_bytes(wrong[i], bytes, sizeof bytes));
    assert_true(digits_take_bytes(&text, bytes, sizeof bytes));
    assert_string_equal(text, ":1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_end_where_they_should),
        cmocka_unit_test(what_is_no_number_changes_nothing),
        cmocka_unit_test(bytes_are_two_digits_each),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
