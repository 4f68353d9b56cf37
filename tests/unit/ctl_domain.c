/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Opting in against libvirt's built-in test driver, which needs no daemon; and what QEMUs call themselves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/ctl/domain.h"
#include "client/ctl/host_qemu.h"
#include "client/operator/opt_in.h"

#define URI   "test:///default"
#define TOKEN "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static char *read_back(virDomain *domain, unsigned affects)
{
    return virDomainGetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT, OPT_IN_NAMESPACE, affects);
}

static void assert_says(virDomain *domain, unsigned affects, OptInWish wish, const char *token)
{
    char *text = read_back(domain, affects);
    OptIn opt_in = opt_in_of_element(text);

    free(text);
    assert_int_equal(opt_in.wish, wish);
    assert_string_equal(opt_in.token, token);
}

static void test_enable_and_disable(void **state)
{
    g_autoptr(virConnect) connection = domain_connect(URI, FALSE, NULL);
    g_autoptr(virDomain) domain = domain_find(connection, "test", NULL);
    DomainParts done;

    (void)state;
    assert_non_null(domain);
    assert_says(domain, VIR_DOMAIN_AFFECT_LIVE, OPT_IN_SILENT, "");
    assert_true(domain_opt_in(domain, TRUE, &done, NULL));
    assert_true(done.live && done.persistent);
    assert_says(domain, VIR_DOMAIN_AFFECT_LIVE, OPT_IN_YES, "");
    assert_says(domain, VIR_DOMAIN_AFFECT_CONFIG, OPT_IN_YES, "");
    assert_true(domain_opt_in(domain, FALSE, &done, NULL));
    assert_says(domain, VIR_DOMAIN_AFFECT_LIVE, OPT_IN_NO, "");
    assert_says(domain, VIR_DOMAIN_AFFECT_CONFIG, OPT_IN_NO, "");
}

static void test_refused(void **state)
{
    g_autoptr(virConnect) connection = domain_connect(URI, TRUE, NULL);
    g_autoptr(virDomain) domain = domain_find(connection, "test", NULL);
    g_autoptr(GError) error = NULL;
    DomainParts done;

    (void)state;
    assert_false(domain_opt_in(domain, TRUE, &done, &error));
    assert_non_null(strstr(error->message, "domain 'test'"));
    assert_non_null(strstr(error->message, "read only")); /* as libvirt says it */
    assert_false(done.live || done.persistent);
}

/* The token is the daemon's: of the guest that runs, never of its definition. */
static void test_token_stays(void **state)
{
    g_autoptr(virConnect) connection = domain_connect(URI, FALSE, NULL);
    g_autoptr(virDomain) domain = domain_find(connection, "test", NULL);
    DomainParts done;

    (void)state;
    assert_int_equal(virDomainSetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT,
                                          "<migration token='" TOKEN "'/>", OPT_IN_KEY,
                                          OPT_IN_NAMESPACE, VIR_DOMAIN_AFFECT_LIVE),
                     0);
    assert_true(domain_opt_in(domain, TRUE, &done, NULL));
    assert_says(domain, VIR_DOMAIN_AFFECT_LIVE, OPT_IN_YES, TOKEN);
    assert_says(domain, VIR_DOMAIN_AFFECT_CONFIG, OPT_IN_YES, "");
    assert_true(domain_opt_in(domain, FALSE, &done, NULL));
    assert_says(domain, VIR_DOMAIN_AFFECT_LIVE, OPT_IN_NO, TOKEN);
}

/* So is the note that its QEMU may leave memory out of what it saves. */
static void test_note_stays(void **state)
{
    g_autoptr(virConnect) connection = domain_connect(URI, FALSE, NULL);
    g_autoptr(virDomain) domain = domain_find(connection, "test", NULL);
    DomainParts done;
    char *text;

    (void)state;
    assert_int_equal(virDomainSetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT,
                                          "<migration ignore-shared='yes'/>", OPT_IN_KEY,
                                          OPT_IN_NAMESPACE, VIR_DOMAIN_AFFECT_LIVE),
                     0);
    assert_true(domain_opt_in(domain, FALSE, &done, NULL));
    text = read_back(domain, VIR_DOMAIN_AFFECT_LIVE);
    assert_string_equal(text, "<migration ignore-shared=\"yes\" enabled=\"no\"/>");
    free(text);
}

/* The whole XML has it where the hook looks for it. */
static void test_written_for_the_hook(void **state)
{
    g_autoptr(virConnect) connection = domain_connect(URI, FALSE, NULL);
    g_autoptr(virDomain) domain = domain_find(connection, "test", NULL);
    DomainParts done;
    char *text;

    (void)state;
    assert_true(domain_opt_in(domain, TRUE, &done, NULL));
    text = virDomainGetXMLDesc(domain, 0);
    assert_non_null(text);
    assert_non_null(strstr(text, "<postcopyd:migration xmlns:postcopyd=\"urn:postcopyd:domain:1\" "
                                 "enabled=\"yes\"/>"));
    free(text);
}

static void test_not_running(void **state)
{
    g_autoptr(virConnect) connection = domain_connect(URI, FALSE, NULL);
    g_autoptr(virDomain) domain = domain_find(connection, "test", NULL);
    DomainParts done;

    (void)state;
    assert_int_equal(virDomainDestroy(domain), 0);
    assert_true(domain_opt_in(domain, TRUE, &done, NULL));
    assert_true(!done.live && done.persistent);
    assert_says(domain, VIR_DOMAIN_AFFECT_CONFIG, OPT_IN_YES, "");
}

static void test_transient(void **state)
{
    static const char xml[] = "<domain type='test'><name>passing</name><memory>8192</memory>"
                              "<os><type>hvm</type></os></domain>";
    g_autoptr(virConnect) connection = domain_connect(URI, FALSE, NULL);
    g_autoptr(virDomain) domain = virDomainCreateXML(connection, xml, 0);
    DomainParts done;

    (void)state;
    assert_non_null(domain);
    assert_true(domain_opt_in(domain, TRUE, &done, NULL));
    assert_true(done.live && !done.persistent);
    assert_says(domain, VIR_DOMAIN_AFFECT_LIVE, OPT_IN_YES, "");
}

static void test_lookup(void **state)
{
    g_autoptr(virConnect) connection = domain_connect(URI, FALSE, NULL);
    g_autoptr(virDomain) by_name = domain_find(connection, "test", NULL);
    g_autoptr(virDomain) by_uuid = NULL, none = NULL;
    g_autoptr(virConnect) nowhere = NULL;
    g_autoptr(GError) error = NULL;
    char uuid[VIR_UUID_STRING_BUFLEN];

    (void)state;
    assert_int_equal(virDomainGetUUIDString(by_name, uuid), 0);
    by_uuid = domain_find(connection, uuid, NULL);
    assert_non_null(by_uuid);
    none = domain_find(connection, "nobody", &error);
    assert_null(none);
    assert_non_null(strstr(error->message, "no domain 'nobody'"));
    g_clear_error(&error);
    nowhere = domain_connect("nonsense:///system", FALSE, &error);
    assert_null(nowhere);
    assert_non_null(strstr(error->message, "cannot reach libvirt at nonsense:///system"));
    assert_null(strchr(error->message, '\n'));
}

static void test_qemu_version(void **state)
{
    (void)state;
    assert_int_equal(host_qemu_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg)"), 7002);
    assert_int_equal(host_qemu_version("QEMU emulator version 10.0.0\nCopyright"), 10000);
    assert_int_equal(host_qemu_version("QEMU emulator version "), 0);
    assert_int_equal(host_qemu_version("something else"), 0);
    assert_int_equal(host_qemu_version("version 99999.1"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_enable_and_disable),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_token_stays),
        cmocka_unit_test(test_note_stays),
        cmocka_unit_test(test_written_for_the_hook),
        cmocka_unit_test(test_not_running),
        cmocka_unit_test(test_transient),
        cmocka_unit_test(test_lookup),
        cmocka_unit_test(test_qemu_version),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
