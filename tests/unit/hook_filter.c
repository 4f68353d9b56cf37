/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the hook puts into a domain's XML, and what it leaves alone there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "client/hook/filter.h"
#include "client/operator/xml.h"

#define QEMU "http://libvirt.org/schemas/domain/qemu/1.0"

static const FilterAdditions additions = {
    .preload = "/usr/lib/libpostcopy-qemu.so",
    .socket = "/run/postcopyd/postcopyd.sock",
    .monitor = "/run/libvirt/qemu/dbus/1",
};

#define OUR_ARGS                                                                     \
    "-chardev socket,id=postcopyd,path=/run/libvirt/qemu/dbus/1,server=on,wait=off " \
    "-mon chardev=postcopyd,id=postcopyd,mode=control"
#define OUR_SOCKET "POSTCOPY_SOCKET=/run/postcopyd/postcopyd.sock"
#define OUR_ENV    "LD_PRELOAD=/usr/lib/libpostcopy-qemu.so " OUR_SOCKET

static xmlDoc *parse(const char *text)
{
    g_autoptr(GError) error = NULL;
    xmlDoc *document = xml_parse(text, strlen(text), &error);

    if (!document)
        fail_msg("%s", error->message);
    return document;
}

/* All values, in their order, as libvirt finds them: by namespace. */
static char *describe(xmlDoc *document, const char *element)
{
    const xmlNode *domain = xmlDocGetRootElement(document);
    g_autoptr(GString) text = g_string_new(NULL);

    for (xmlNode *line = xml_child(domain, "commandline", QEMU); line;
         line = xml_next(line, "commandline", QEMU))
        for (xmlNode *node = xml_child(line, element, QEMU); node;
             node = xml_next(node, element, QEMU)) {
            g_autofree char *name = xml_attribute(node, "name");
            g_autofree char *value = xml_attribute(node, "value");

            g_string_append_printf(text, "%s%s%s%s", text->len ? " " : "", name, *name ? "=" : "",
                                   value);
        }
    return g_strdup(text->str);
}

/* A text as the hook makes it of another. */
static char *with_ours(const char *text)
{
    g_autoptr(xmlDoc) document = parse(text);

    filter_remove(xmlDocGetRootElement(document));
    filter_add(xmlDocGetRootElement(document), &additions);
    return xml_print(document);
}

static char *without_ours(const char *text, gboolean expected)
{
    g_autoptr(xmlDoc) document = parse(text);

    assert_int_equal(filter_remove(xmlDocGetRootElement(document)), expected);
    assert_false(filter_has_monitor(xmlDocGetRootElement(document)));
    return xml_print(document);
}

/* Read anew, as libvirt will. */
static void assert_values(const char *text, const char *args, const char *env)
{
    g_autoptr(xmlDoc) document = parse(text);
    g_autofree char *has_args = describe(document, "arg");
    g_autofree char *has_env = describe(document, "env");

    assert_string_equal(has_args, args);
    assert_string_equal(has_env, env);
}

static void check(const char *text, const char *args, const char *env)
{
    g_autofree char *once = with_ours(text);
    g_autofree char *twice = with_ours(once);
    g_autofree char *thrice = with_ours(twice);
    g_autoptr(xmlDoc) document = parse(once);

    assert_values(once, args, env);
    assert_values(twice, args, env);
    assert_string_equal(twice, thrice);
    assert_true(filter_has_monitor(xmlDocGetRootElement(document)));
}

static void test_namespace(void **state)
{
    (void)state;
    check("<domain type='kvm'/>", OUR_ARGS, OUR_ENV);
    check("<domain type='kvm'>\n  <name>g</name>\n</domain>\n", OUR_ARGS, OUR_ENV);
    check("<domain xmlns:qemu='" QEMU "'/>", OUR_ARGS, OUR_ENV);
    /* Another prefix, none, and a prefix that means something else. */
    check("<domain xmlns:q='" QEMU "'><q:commandline/></domain>", OUR_ARGS, OUR_ENV);
    check("<domain><commandline xmlns='" QEMU "'/></domain>", OUR_ARGS, OUR_ENV);
    check("<domain xmlns:qemu='urn:other'><qemu:commandline><qemu:arg value='x'/>"
          "</qemu:commandline></domain>",
          OUR_ARGS, OUR_ENV);
    check("<domain><commandline><arg value='x'/></commandline></domain>", OUR_ARGS, OUR_ENV);
}

#define DOMAIN(inside) \
    "<domain xmlns:qemu='" QEMU "'><qemu:commandline>" inside "</qemu:commandline></domain>"
#define ARG(value)       "<qemu:arg value='" value "'/>\n"
#define ENV(name, value) "<qemu:env name='" name "' value='" value "'/>\n"

static void test_foreign_arguments_stay(void **state)
{
    (void)state;
    check(DOMAIN(ARG("-device") ARG("x,id=y") ENV("A", "b")), "-device x,id=y " OUR_ARGS,
          "A=b " OUR_ENV);
    /* Other monitors, and ids that only look like ours. */
    check(DOMAIN(ARG("-chardev") ARG("socket,id=mine,path=/a,server=on") ARG("-mon")
                     ARG("chardev=mine,mode=control") ARG("-chardev") ARG("null,id=postcopyd2")
                         ARG("-chardev") ARG("file,id=z,path=/id=postcopyd")),
          "-chardev socket,id=mine,path=/a,server=on -mon chardev=mine,mode=control "
          "-chardev null,id=postcopyd2 -chardev file,id=z,path=/id=postcopyd " OUR_ARGS,
          OUR_ENV);
    check(DOMAIN(ARG("-device") ARG("x,id=postcopyd") ARG("-chardev")),
          "-device x,id=postcopyd -chardev " OUR_ARGS, OUR_ENV);
    check(DOMAIN(ENV("POSTCOPY_LOG", "/l") ENV("LD_PRELOADED", "x")), OUR_ARGS,
          "POSTCOPY_LOG=/l LD_PRELOADED=x " OUR_ENV);
}

static void test_earlier_additions_are_replaced(void **state)
{
    (void)state;
    check(DOMAIN(ARG("-a") ARG("-chardev")
                     ARG("socket,id=postcopyd,path=/old/2.sock,server=on,wait=off") ARG("-b")
                         ARG("-mon") ARG("chardev=postcopyd,id=postcopyd,mode=control") ARG("-c")
                             ENV("LD_PRELOAD", "/opt/lib64/libpostcopy-qemu.so")
                                 ENV("POSTCOPY_SOCKET", "/old.sock")),
          "-a -b -c " OUR_ARGS, OUR_ENV);
}

static void test_preload_of_others_stays(void **state)
{
    (void)state;
    check(DOMAIN(ENV("LD_PRELOAD", "/lib/theirs.so")), OUR_ARGS,
          "LD_PRELOAD=/lib/theirs.so:/usr/lib/libpostcopy-qemu.so " OUR_SOCKET);
    check(DOMAIN(ENV("LD_PRELOAD", "/a.so /old/libpostcopy-qemu.so:/b.so")), OUR_ARGS,
          "LD_PRELOAD=/a.so:/b.so:/usr/lib/libpostcopy-qemu.so " OUR_SOCKET);
    /* Of two, QEMU sees the last. */
    check(DOMAIN(ENV("LD_PRELOAD", "/a.so") ENV("LD_PRELOAD", "/b.so")), OUR_ARGS,
          "LD_PRELOAD=/a.so LD_PRELOAD=/b.so:/usr/lib/libpostcopy-qemu.so " OUR_SOCKET);
}

static void test_removal(void **state)
{
    static const char plain[] = "<domain xmlns:qemu=\"" QEMU "\"><name>g</name></domain>\n";
    static const char theirs[] =
        "<domain xmlns:qemu=\"" QEMU "\"><qemu:commandline><qemu:arg value=\"-s\"/>"
        "<qemu:env name=\"LD_PRELOAD\" value=\"/a.so\"/></qemu:commandline></domain>\n";
    g_autofree char *added = with_ours(plain);
    g_autofree char *removed = without_ours(added, TRUE);
    g_autofree char *added_to_theirs = with_ours(theirs);
    g_autofree char *removed_from_theirs = without_ours(added_to_theirs, TRUE);
    g_autofree char *untouched = without_ours(theirs, FALSE);
    g_autofree char *empty =
        without_ours("<domain xmlns:q='" QEMU "'><q:commandline/></domain>", FALSE);

    (void)state;
    assert_string_equal(removed, plain);
    assert_string_equal(removed_from_theirs, theirs);
    assert_string_equal(untouched, theirs);
    assert_non_null(strstr(empty, "commandline"));
}

static void test_several_command_lines(void **state)
{
    static const char text[] = "<domain xmlns:qemu='" QEMU "'><qemu:commandline>" ARG(
        "-a") "</qemu:commandline>"
              "<qemu:commandline>" ARG("-chardev") ARG("null,id=postcopyd")
                  ENV("LD_PRELOAD", "libpostcopy-qemu.so") "</qemu:commandline></domain>";

    (void)state;
    check(text, "-a " OUR_ARGS, OUR_ENV);
}

static void test_awkward_paths(void **state)
{
    static const FilterAdditions awkward = {
        .preload = "/p&q<\"'/libpostcopy-qemu.so",
        .socket = "/s&amp;.sock",
        .monitor = "/a,b,server=off/1.sock",
    };
    g_autoptr(xmlDoc) document = parse("<domain/>");
    g_autofree char *text = NULL;

    (void)state;
    filter_add(xmlDocGetRootElement(document), &awkward);
    text = xml_print(document);
    assert_values(text,
                  "-chardev socket,id=postcopyd,path=/a,,b,,server=off/1.sock,server=on,wait=off "
                  "-mon chardev=postcopyd,id=postcopyd,mode=control",
                  "LD_PRELOAD=/p&q<\"'/libpostcopy-qemu.so POSTCOPY_SOCKET=/s&amp;.sock");
}

/* What is not ours comes out as it went in. */
static void test_the_rest_is_kept(void **state)
{
    static const char text[] =
        "<domain type=\"kvm\"><!-- a note --><name>M\xc3\xbchle &amp; S\xc3\xb6hne</name>"
        "<description><![CDATA[<b> & ]]></description><metadata><x:y xmlns:x=\"urn:x\" a=\"1\"/>"
        "</metadata><devices>\n  <emulator>/q</emulator>\n</devices></domain>\n";
    g_autofree char *added = with_ours(text);
    g_autofree char *removed = without_ours(added, TRUE);
    g_autoptr(GString) expected = g_string_new(text);

    (void)state;
    g_string_replace(expected, "<domain type=\"kvm\">",
                     "<domain xmlns:qemu=\"" QEMU "\" type=\"kvm\">", 1);
    assert_string_equal(removed, expected->str);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_namespace),
        cmocka_unit_test(test_foreign_arguments_stay),
        cmocka_unit_test(test_earlier_additions_are_replaced),
        cmocka_unit_test(test_preload_of_others_stays),
        cmocka_unit_test(test_removal),
        cmocka_unit_test(test_several_command_lines),
        cmocka_unit_test(test_awkward_paths),
        cmocka_unit_test(test_the_rest_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
