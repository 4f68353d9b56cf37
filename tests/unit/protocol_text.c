/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a string may hold, and how a text is made so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/text.h"
#include "protocol/wire.h"

/* Looks at exactly these bytes, in memory that ends behind them. */
static bool plain(const char *bytes, size_t length)
{
    char *copy = malloc(length ? length : 1);
    bool result;

    assert_non_null(copy);
    memcpy(copy, bytes, length);
    result = text_is_plain(copy, length);
    free(copy);
    return result;
}

#define assert_plain(literal)   assert_true(plain(literal, sizeof(literal) - 1))
#define assert_refused(literal) assert_false(plain(literal, sizeof(literal) - 1))

static void test_characters_of_every_length(void **state)
{
    (void)state;
    assert_plain("");
    assert_plain(" guest~");
    assert_plain("\302\200 \337\277");                 /* U+0080, U+07FF */
    assert_plain("\340\240\200 \357\277\277");         /* U+0800, U+FFFF */
    assert_plain("\355\237\277 \356\200\200");         /* around the surrogates */
    assert_plain("\360\220\200\200 \364\217\277\277"); /* U+10000, U+10FFFF */
}

static void test_control_characters(void **state)
{
    (void)state;
    assert_refused("a\nb");
    assert_refused("\037");
    assert_refused("\177");
    assert_refused("a\0b");
}

static void test_what_is_no_character(void **state)
{
    (void)state;
    assert_refused("\377");
    assert_refused("M\374hle");
    assert_refused("\200"); /* goes on with nothing */
    assert_refused("\303(");
    assert_refused("\342\202(");
    assert_refused("\360\237\230(");
    assert_refused("\365\200\200\200");
    assert_refused("\370\210\200\200\200");
}

static void test_overlong_forms(void **state)
{
    (void)state;
    assert_refused("\300\200");
    assert_refused("\301\277");
    assert_refused("\340\237\277");
    assert_refused("\360\217\277\277");
}

static void test_surrogates_and_beyond(void **state)
{
    (void)state;
    assert_refused("\355\240\200");
    assert_refused("\355\277\277");
    assert_refused("\364\220\200\200");
}

static void test_half_characters(void **state)
{
    static const char *const whole[] = {"\303\274", "\342\202\254", "\360\237\230\200"};

    (void)state;
    for (size_t i = 0; i < 3; i++)
        for (size_t length = 1; length <= strlen(whole[i]); length++) {
            bool all = length == strlen(whole[i]);
            char text[8] = "ab";
            memcpy(text + 2, whole[i], length);
            assert_int_equal(plain(text, 2 + length), all);
            assert_int_equal(text_whole(text, 2 + length), all ? 2 + length : 2);
            assert_int_equal(text_whole(text + 2, length), all ? length : 0);
        }
    assert_int_equal(text_whole("", 0), 0);
    assert_int_equal(text_whole("\200\200\200\200\200", 5), 5); /* for others to refuse */
}

static void test_mending(void **state)
{
    char text[] = "M\374hle \303\274 \342\202 \n\355\240\200\303";

    (void)state;
    text_mend(text, strlen(text));
    assert_string_equal(text, "M?hle \303\274 ?? ?????");
    assert_true(text_is_plain(text, strlen(text)));
}

/* Writes it as a text and reads it as any string. */
static void pass(const char *text, char *ret_text, size_t limit)
{
    uint8_t bytes[64];
    WireWriter w = {.data = bytes, .size = sizeof bytes};
    WireReader r = {.data = bytes};

    wire_write_u8(&w, 7);
    wire_write_text(&w, text, limit);
    assert_false(w.failed);
    r.left = w.used;
    assert_int_equal(wire_read_u8(&r), 7);
    wire_read_string(&r, ret_text, limit);
    assert_true(wire_read_complete(&r));
}

static void test_a_text_arrives_whatever_it_was(void **state)
{
    uint8_t bytes[4];
    WireWriter w = {.data = bytes, .size = sizeof bytes};
    char text[9];

    (void)state;
    pass("as it is", text, 8);
    assert_string_equal(text, "as it is");
    pass("is cut here", text, 8);
    assert_string_equal(text, "is cut h");
    pass("halves \342\202\254", text, 8);
    assert_string_equal(text, "halves ");
    pass("half \342\202", text, 8);
    assert_string_equal(text, "half ");
    pass("M\374hle\n", text, 8);
    assert_string_equal(text, "M?hle?");
    pass(NULL, text, 8);
    assert_string_equal(text, "");
    wire_write_text(&w, "too long", 8);
    assert_true(w.failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_characters_of_every_length),
        cmocka_unit_test(test_control_characters),
        cmocka_unit_test(test_what_is_no_character),
        cmocka_unit_test(test_overlong_forms),
        cmocka_unit_test(test_surrogates_and_beyond),
        cmocka_unit_test(test_half_characters),
        cmocka_unit_test(test_mending),
        cmocka_unit_test(test_a_text_arrives_whatever_it_was),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
