/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How deep JSON from outside may nest, and that nothing hides how deep it does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/qmp/json_depth.h"

/* Looks at exactly these bytes, in memory that ends behind them. */
static gboolean is_bounded(const char *text, gsize length)
{
    char *copy = g_memdup2(text, length);
    gboolean result = json_depth_is_bounded(copy, length);

    g_free(copy);
    return result;
}

/* before, then so many of that character, then after. */
static gboolean with_many(const char *before, gsize n, char character, const char *after)
{
    g_autoptr(GString) text = g_string_new(before);

    while (n-- > 0)
        g_string_append_c(text, character);
    g_string_append(text, after);
    return is_bounded(text->str, text->len);
}

static void test_depth_is_bounded(void **state)
{
    (void)state;
    assert_true(is_bounded("", 0));
    assert_true(with_many("", JSON_DEPTH_MAX, '[', ""));
    assert_false(with_many("", JSON_DEPTH_MAX + 1, '[', ""));
    assert_true(with_many("[", JSON_DEPTH_MAX - 1, '{', "}]"));
    assert_false(with_many("[", JSON_DEPTH_MAX, '{', "}]"));
}

static void test_width_is_not(void **state)
{
    g_autoptr(GString) text = g_string_new("[");

    (void)state;
    for (int i = 0; i < 10 * JSON_DEPTH_MAX; i++)
        g_string_append(text, "{\"a\": []},");
    g_string_append(text, "{}]");
    assert_true(is_bounded(text->str, text->len));
}

static void test_strings_do_not_count(void **state)
{
    (void)state;
    assert_true(with_many("{\"op\": \"", 1000, '[', "\"}"));
    assert_true(with_many("{\"op\": \"/'\\\"\\\\\\\"", 1000, '[', "\"}"));
    assert_true(with_many("{\"op\": \"", 1000, '[', "")); /* for the parser to refuse */
    assert_true(is_bounded("\"\\", 2));
}

/* What a string closes nothing outside of it opens again. */
static void test_nothing_hides_depth(void **state)
{
    (void)state;
    assert_false(with_many("{\"a\": \"]]]]]]]]\", \"b\":", JSON_DEPTH_MAX, '[', ""));
    assert_false(with_many("{\"a\\\\\":", JSON_DEPTH_MAX, '[', ""));
    assert_false(with_many("]]]]]]]]", JSON_DEPTH_MAX + 1, '[', ""));
    assert_false(with_many("{'\"': ", JSON_DEPTH_MAX, '[', ""));
    assert_false(with_many("/* \" */", JSON_DEPTH_MAX + 1, '[', ""));
    assert_false(with_many("// \"\n", JSON_DEPTH_MAX + 1, '[', ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_depth_is_bounded),
        cmocka_unit_test(test_width_is_not),
        cmocka_unit_test(test_strings_do_not_count),
        cmocka_unit_test(test_nothing_hides_depth),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
