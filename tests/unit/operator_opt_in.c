/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Metadata of a domain, and XML that means harm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/operator/opt_in.h"
#include "client/operator/xml.h"

#define TOKEN "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef"

static OptIn of(const char *metadata)
{
    g_autofree char *text = g_strdup_printf("<domain><name>g</name>%s</domain>", metadata);
    g_autoptr(xmlDoc) document = xml_parse(text, strlen(text), NULL);

    assert_non_null(document);
    return opt_in_of_domain(xmlDocGetRootElement(document));
}

#define META(attributes)                                \
    "<metadata><a:other xmlns:a='urn:a'/><p:migration " \
    "xmlns:p='urn:postcopyd:domain:1' " attributes "/></metadata>"

static void assert_opt_in(OptIn opt_in, OptInWish wish, const char *token, gboolean opted,
                          gboolean all)
{
    assert_int_equal(opt_in.wish, wish);
    assert_string_equal(opt_in.token, token);
    assert_int_equal(opt_in_is_on(&opt_in, FALSE), opted);
    assert_int_equal(opt_in_is_on(&opt_in, TRUE), all);
}

static void test_domain(void **state)
{
    (void)state;
    assert_opt_in(of(""), OPT_IN_SILENT, "", FALSE, TRUE);
    assert_opt_in(of("<metadata/>"), OPT_IN_SILENT, "", FALSE, TRUE);
    assert_opt_in(of(META("enabled='yes'")), OPT_IN_YES, "", TRUE, TRUE);
    assert_opt_in(of(META("enabled='yes' token='" TOKEN "'")), OPT_IN_YES, TOKEN, TRUE, TRUE);
    assert_opt_in(of(META("enabled='no' token='" TOKEN "'")), OPT_IN_NO, TOKEN, FALSE, FALSE);
    assert_opt_in(of(META("token='" TOKEN "'")), OPT_IN_SILENT, TOKEN, FALSE, TRUE);
    assert_opt_in(of(META("enabled='YES'")), OPT_IN_SILENT, "", FALSE, TRUE);
    /* Of another namespace, or of none. */
    assert_opt_in(of("<metadata><migration enabled='yes'/></metadata>"), OPT_IN_SILENT, "", FALSE,
                  TRUE);
    assert_opt_in(of("<metadata><p:migration xmlns:p='urn:x' enabled='yes'/></metadata>"),
                  OPT_IN_SILENT, "", FALSE, TRUE);
    assert_opt_in(of("<p:migration xmlns:p='urn:postcopyd:domain:1' enabled='yes'/>"),
                  OPT_IN_SILENT, "", FALSE, TRUE);
}

static void test_token_bounds(void **state)
{
    (void)state;
    assert_opt_in(of(META("token='" TOKEN "0'")), OPT_IN_SILENT, "", FALSE, TRUE);
    assert_opt_in(of(META("token='0123'")), OPT_IN_SILENT, "", FALSE, TRUE);
    assert_opt_in(
        of(META("token='g123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'")),
        OPT_IN_SILENT, "", FALSE, TRUE);
}

static void test_element(void **state)
{
    OptIn opt_in = opt_in_of_element("<migration enabled='no' token='" TOKEN "'/>");

    (void)state;
    assert_opt_in(opt_in, OPT_IN_NO, TOKEN, FALSE, FALSE);
    opt_in = opt_in_of_element(NULL);
    assert_opt_in(opt_in, OPT_IN_SILENT, "", FALSE, TRUE);
    opt_in = opt_in_of_element("no XML");
    assert_opt_in(opt_in, OPT_IN_SILENT, "", FALSE, TRUE);
}

static void assert_rewritten(const char *before, gboolean enabled, const char *after)
{
    g_autofree char *text = opt_in_rewrite(before, enabled);

    assert_string_equal(text, after);
}

/* The word is the owner's, all else is the daemon's: above all that QEMU may leave out memory. */
static void test_rewritten(void **state)
{
    (void)state;
    assert_rewritten(NULL, TRUE, "<migration enabled=\"yes\"/>");
    assert_rewritten("no XML", FALSE, "<migration enabled=\"no\"/>");
    assert_rewritten("<other enabled='yes'/>", FALSE, "<migration enabled=\"no\"/>");
    assert_rewritten(
        "<migration token='" TOKEN "' enabled='yes' ignore-shared='yes' later='x'/>", FALSE,
        "<migration token=\"" TOKEN "\" enabled=\"no\" ignore-shared=\"yes\" later=\"x\"/>");
    assert_rewritten("<migration ignore-shared='yes'><hint/></migration>", TRUE,
                     "<migration ignore-shared=\"yes\" enabled=\"yes\"><hint/></migration>");
}

static void refuse_bytes(const char *text, gsize length, const char *why)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(xmlDoc) document = xml_parse(text, length, &error);

    assert_null(document);
    assert_non_null(error);
    assert_non_null(strstr(error->message, why));
    assert_null(strchr(error->message, '\n'));
}

static void refuse(const char *text, const char *why)
{
    refuse_bytes(text, strlen(text), why);
}

static void test_malformed(void **state)
{
    g_autofree char *deep = g_malloc(3 * 100000 + 1);
    char zero[] = "<domain>\0</domain>";

    (void)state;
    refuse("", "empty");
    refuse("<domain>", "cannot be used");
    refuse("no XML at all", "cannot be used");
    refuse("<domain><a></domain></a>", "cannot be used");
    refuse("<domain>&nothing;</domain>", "cannot be used");
    refuse("<domain a='1' a='2'/>", "cannot be used");
    refuse("<domain>\xff</domain>", "cannot be used");
    refuse_bytes(zero, sizeof zero - 1, "cannot be used");
    for (gsize i = 0; i < 100000; i++)
        memcpy(deep + 3 * i, "<a>", 3);
    refuse_bytes(deep, 300000, "cannot be used");
}

static void test_too_long(void **state)
{
    gsize length = XML_TEXT_MAX + 1;
    g_autofree char *text = g_malloc(length);

    (void)state;
    memset(text, ' ', length);
    memcpy(text, "<domain/>", 9);
    refuse_bytes(text, length, "too long");
}

/* Nothing that another host names is opened here, and nothing it declares grows. */
static void test_entities(void **state)
{
    char path[] = "/tmp/opt_in_XXXXXX";
    int fd = mkstemp(path);
    g_autofree char *external = NULL, *wide = NULL;
    gsize length;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "secret", 6), 6);
    close(fd);
    external = g_strdup_printf(
        "<!DOCTYPE domain [<!ENTITY x SYSTEM 'file://%s'>]><domain><name>&x;</name></domain>",
        path);
    refuse(external, "document type");
    refuse("<!DOCTYPE domain [<!ENTITY a 'x'><!ENTITY b '&a;&a;'>]><domain n='&b;'>&b;</domain>",
           "document type");
    refuse("<!DOCTYPE domain SYSTEM 'http://127.0.0.1:1/x.dtd'><domain/>", "document type");
    /* Hidden from a search for bytes by another encoding. */
    wide = g_convert(external, -1, "UTF-16", "UTF-8", NULL, &length, NULL);
    assert_non_null(wide);
    refuse_bytes(wide, length, "cannot be used");
    unlink(path);
}

/* An inclusion is plain text to us. */
static void test_inclusion(void **state)
{
    static const char text[] = "<domain xmlns:xi='http://www.w3.org/2001/XInclude'>"
                               "<xi:include href='/etc/passwd' parse='text'/></domain>";
    g_autoptr(xmlDoc) document = xml_parse(text, strlen(text), NULL);
    g_autofree char *printed = NULL;

    (void)state;
    assert_non_null(document);
    printed = xml_print(document);
    assert_null(strstr(printed, "root:"));
    assert_non_null(strstr(printed, "xi:include"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_domain),    cmocka_unit_test(test_token_bounds),
        cmocka_unit_test(test_element),   cmocka_unit_test(test_rewritten),
        cmocka_unit_test(test_malformed), cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_entities),  cmocka_unit_test(test_inclusion),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
