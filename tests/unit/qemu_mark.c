/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What stands in a domain's metadata is read as it was written, and nonsense as "leave it alone". */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/qemu/mark.h"

#define DIGITS_BUT_ONE "0112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"
#define DIGITS         "0" DIGITS_BUT_ONE

static void reads_what_libvirt_gives(void **state)
{
    static const char *const forms[] = {
        "<migration enabled=\"yes\" token=\"" DIGITS "\"/>",
        "<postcopyd:migration xmlns:postcopyd='urn:postcopyd:domain:1' enabled='yes' token='" DIGITS
        "'></postcopyd:migration>",
        "<?xml version='1.0'?>\n<migration token='" DIGITS "' enabled='yes' later='x'/>\n",
    };
    Mark mark;

    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        assert_true(mark_parse(forms[i], &mark));
        assert_int_equal(mark.enabled, MARK_YES);
        assert_true(mark.has_token);
        assert_false(mark.ignore_shared);
        for (int byte = 0; byte < LIMIT_TOKEN; byte++)
            assert_int_equal(mark.token[byte], byte % 16 * 0x11);
    }
}

static void other_words(void **state)
{
    Mark mark;

    (void)state;
    assert_true(mark_parse("<migration/>", &mark));
    assert_int_equal(mark.enabled, MARK_UNSET);
    assert_true(mark_parse("<migration enabled='no' ignore-shared='yes'/>", &mark));
    assert_int_equal(mark.enabled, MARK_NO);
    assert_true(mark.ignore_shared);
    assert_false(mark.has_token);
}

static void a_bad_token_is_none(void **state)
{
    static const char *const forms[] = {
        "<migration enabled='yes' token=''/>",
        "<migration enabled='yes' token='0011'/>",
        "<migration enabled='yes' token='" DIGITS "0'/>",
        "<migration enabled='yes' token='x" DIGITS_BUT_ONE "'/>",
    };
    Mark mark;

    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        assert_true(mark_parse(forms[i], &mark));
        assert_false(mark.has_token);
        assert_int_equal(mark.enabled, MARK_YES);
    }
}

/* Also with every domain taking part. */
static void nonsense_is_left_alone(void **state)
{
    static const char *const forms[] = {
        "",
        "x",
        "<migration",
        "<other enabled='yes'/>",
        "<migration enabled='perhaps'/>",
        "<migration enabled=''/>",
        "<!DOCTYPE migration [<!ENTITY e 'yes'>]><migration enabled='&e;",
    };
    char *large = g_strdup_printf("<migration enabled='yes'>%*s</migration>", 1 << 20, "");
    Mark mark;

    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        assert_false(mark_parse(forms[i], &mark));
        assert_false(mark_takes_part(&mark, TRUE));
    }
    assert_false(mark_parse(large, &mark));
    assert_false(mark_takes_part(&mark, TRUE));
    g_free(large);
}

static void written_and_read(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 12; bits++) {
        Mark before = {.enabled = bits % 3, .has_token = bits & 1, .ignore_shared = bits >= 6};
        Mark after;
        char *xml;

        for (int i = 0; before.has_token && i < LIMIT_TOKEN; i++)
            before.token[i] = (guint8)(7 * i + 200);
        xml = mark_write(&before, NULL);
        if (!xml) {
            assert_int_equal(before.enabled, MARK_UNSET);
            assert_false(before.has_token || before.ignore_shared);
            continue;
        }
        assert_true(mark_parse(xml, &after));
        assert_memory_equal(&before, &after, sizeof before);
        g_free(xml);
    }
}

/* Of a later version, or of somebody who has his own ideas. */
static void what_others_wrote_stays(void **state)
{
    static const char before[] =
        "<migration later='x&lt;' enabled='yes' token='" DIGITS "'><hint>7</hint></migration>";
    Mark mark = {.enabled = MARK_NO, .ignore_shared = TRUE}, after;
    char *xml = mark_write(&mark, before);

    (void)state;
    assert_string_equal(xml, "<migration later=\"x&lt;\" enabled=\"no\" ignore-shared=\"yes\">"
                             "<hint>7</hint></migration>");
    assert_true(mark_parse(xml, &after));
    assert_memory_equal(&after, &mark, sizeof after);
    g_free(xml);
    xml = mark_write(&(Mark){0}, "<migration later='x' enabled='yes'/>");
    assert_string_equal(xml, "<migration later=\"x\"/>");
    g_free(xml);
    assert_null(mark_write(&(Mark){0}, "<migration enabled='yes'/>"));
    xml = mark_write(&mark, "no XML");
    assert_string_equal(xml, "<migration enabled=\"no\" ignore-shared=\"yes\"/>");
    g_free(xml);
}

static void who_takes_part(void **state)
{
    (void)state;
    for (MarkEnabled enabled = MARK_UNSET; enabled <= MARK_NO; enabled++) {
        Mark mark = {.enabled = enabled};
        assert_int_equal(mark_takes_part(&mark, FALSE), enabled == MARK_YES);
        assert_int_equal(mark_takes_part(&mark, TRUE), enabled != MARK_NO);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_libvirt_gives), cmocka_unit_test(other_words),
        cmocka_unit_test(a_bad_token_is_none),      cmocka_unit_test(nonsense_is_left_alone),
        cmocka_unit_test(written_and_read),         cmocka_unit_test(who_takes_part),
        cmocka_unit_test(what_others_wrote_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
