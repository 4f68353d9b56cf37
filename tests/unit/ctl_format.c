/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "client/ctl/format.h"

/* Takes text. */
static void assert_text(char *text, const char *expected)
{
    assert_string_equal(text, expected);
    g_free(text);
}

static void test_bytes(void **state)
{
    (void)state;
    assert_text(format_bytes(0), "0 B");
    assert_text(format_bytes(1023), "1023 B");
    assert_text(format_bytes(1536), "1.50 KiB");
    assert_text(format_bytes(UINT64_C(1) << 30), "1.00 GiB");
    assert_text(format_bytes((UINT64_C(1) << 30) - 1), "1.00 GiB");
    assert_text(format_bytes(UINT64_C(300) << 20), "300 MiB");
    assert_text(format_bytes(UINT64_MAX), "16.0 EiB");
}

static void test_times(void **state)
{
    (void)state;
    assert_text(format_nanoseconds(999), "999 ns");
    assert_text(format_nanoseconds(35200), "35.2 µs");
    assert_text(format_nanoseconds(999999), "1.00 ms");
    assert_text(format_nanoseconds(UINT64_C(12000000000)), "12.0 s");
    assert_text(format_seconds(-1), "0.0 s");
    assert_text(format_seconds(4.24), "4.2 s");
    assert_text(format_seconds(59.99), "1 min 0 s");
    assert_text(format_seconds(200), "3 min 20 s");
    assert_text(format_seconds(7500), "2 h 5 min");
}

static void test_percent(void **state)
{
    (void)state;
    assert_text(format_percent(0, 0), "-");
    assert_text(format_percent(58, 100), "58 %");
    assert_text(format_percent(UINT64_C(999999), UINT64_C(1000000)), "99 %");
    assert_text(format_percent(5, 5), "100 %");
}

static void test_bar(void **state)
{
    (void)state;
    assert_text(format_bar(0, 4, TRUE), "....");
    assert_text(format_bar(0.5, 4, TRUE), "##..");
    assert_text(format_bar(7, 4, TRUE), "####");
    assert_text(format_bar(0.5, 4, FALSE), "██  ");
    assert_text(format_bar(0.375, 4, FALSE), "█▌  ");
}

static void test_histogram(void **state)
{
    const guint64 counts[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 400, 200, 0};

    (void)state;
    assert_text(format_histogram(counts, G_N_ELEMENTS(counts), 4, TRUE), "  1.02 µs  #...    1\n"
                                                                         "  2.05 µs  ....    0\n"
                                                                         "  4.10 µs  ####  400\n"
                                                                         "  8.19 µs  ##..  200\n");
    assert_text(format_histogram(counts, 5, 4, TRUE), "");
    assert_text(format_histogram(NULL, 0, 4, FALSE), "");
}

static void test_table(void **state)
{
    g_autoptr(Table) table = table_new((const char *const[]){"VM", ">FAULTS", "REMARK", NULL});

    (void)state;
    table_add(table, g_strdup("größe"));
    table_add(table, g_strdup("7"));
    table_add(table, g_strdup(""));
    table_add(table, g_strdup("b"));
    table_add(table, g_strdup("12345678"));
    table_add(table, g_strdup("x"));
    assert_int_equal(table_rows(table), 2);
    assert_text(table_render(table, " "), " VM       FAULTS  REMARK\n"
                                          " größe         7\n"
                                          " b      12345678  x\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),     cmocka_unit_test(test_times),
        cmocka_unit_test(test_percent),   cmocka_unit_test(test_bar),
        cmocka_unit_test(test_histogram), cmocka_unit_test(test_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
