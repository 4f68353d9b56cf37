/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which transport a migration takes: what its driver wants, what both hosts are configured for, and what the
 * next daemon finds of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/control/transport_choice.h"

static const char *const words[] = {"auto", "tcp", "rdma"};

static Settings settings;
static Control control = {.settings = &settings};

static int set_up(void **state)
{
    char text[LIMIT_TEXT + 1];

    (void)state;
    settings.transport = IMPORT_TRANSPORT_AUTO;
    settings.rdma_networks.text = (char *)"10.0.0.0/8";
    settings.rdma_networks.parsed = networks_parse(settings.rdma_networks.text, text);
    settings.rdma_peers.parsed =
        networks_parse_words("10.1.0.0/16=rdma, 10.1.1.0/24=tcp", words, 3, text);
    assert_non_null(settings.rdma_networks.parsed);
    assert_non_null(settings.rdma_peers.parsed);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    networks_free(settings.rdma_networks.parsed);
    networks_free(settings.rdma_peers.parsed);
    return 0;
}

static unsigned chosen(const char *source, guint32 flags)
{
    ImportConfig config = {.transport = 99};

    transport_configure(&control, source, flags, &config);
    assert_ptr_equal(config.rdma_networks, settings.rdma_networks.parsed);
    assert_ptr_equal(config.rdma_budget, &control.rdma_budget);
    return config.transport;
}

static void imports_are_configured(void **state)
{
    (void)state;
    assert_int_equal(chosen("10.2.0.1:16520", 0), IMPORT_TRANSPORT_AUTO);
    assert_int_equal(chosen("10.1.0.1:16520", 0), IMPORT_TRANSPORT_RDMA);
    assert_int_equal(chosen("10.1.1.1:16520", 0), IMPORT_TRANSPORT_TCP);
    assert_int_equal(chosen("[fd00::1]:16520", 0), IMPORT_TRANSPORT_AUTO);
    assert_int_equal(chosen("nonsense", 0), IMPORT_TRANSPORT_AUTO);
    settings.transport = IMPORT_TRANSPORT_TCP;
    assert_int_equal(chosen("10.2.0.1:16520", 0), IMPORT_TRANSPORT_TCP);
    assert_int_equal(chosen("10.1.0.1:16520", 0), IMPORT_TRANSPORT_RDMA);
    /* The invitation counts before all that, also one that asks for both. */
    assert_int_equal(chosen("10.2.0.1:16520", PEER_INVITE_RDMA), IMPORT_TRANSPORT_RDMA);
    assert_int_equal(chosen("10.1.0.1:16520", PEER_INVITE_TCP), IMPORT_TRANSPORT_TCP);
    assert_int_equal(chosen("10.1.0.1:16520", PEER_INVITE_TCP | PEER_INVITE_RDMA),
                     IMPORT_TRANSPORT_TCP);
    assert_int_equal(chosen("10.1.1.1:16520", PEER_INVITE_AWAIT), IMPORT_TRANSPORT_TCP);
}

static unsigned adopted(const char *source, guint32 progress)
{
    PageTableHeader header = {.progress = progress};
    ImportConfig config = {.transport = 99};
    int table = memfd_create("table", MFD_CLOEXEC);

    g_strlcpy(header.source, source, sizeof header.source);
    assert_int_equal(write(table, &header, sizeof header), sizeof header);
    transport_configure_adopted(&control, table, &config);
    close(table);
    return config.transport;
}

static void what_was_wanted_is_found_again(void **state)
{
    PageTableHeader header = {.progress = PAGE_TABLE_ARMED};
    PageTable table = {.header = &header};
    ImportConfig config = {.transport = 99};

    (void)state;
    assert_int_equal(adopted("10.2.0.1:16520", PAGE_TABLE_ARMED), IMPORT_TRANSPORT_AUTO);
    assert_int_equal(adopted("10.1.0.1:16520", PAGE_TABLE_ARMED), IMPORT_TRANSPORT_RDMA);
    assert_int_equal(adopted("10.1.0.1:16520", PAGE_TABLE_TCP), IMPORT_TRANSPORT_TCP);
    assert_int_equal(adopted("10.1.1.1:16520", PAGE_TABLE_RDMA), IMPORT_TRANSPORT_RDMA);
    assert_int_equal(adopted("\x01\x02", PAGE_TABLE_RDMA | PAGE_TABLE_TCP), IMPORT_TRANSPORT_TCP);
    transport_configure_adopted(&control, -1, &config);
    assert_int_equal(config.transport, IMPORT_TRANSPORT_AUTO);
    transport_remember(&table, PEER_INVITE_AWAIT);
    assert_int_equal(header.progress, PAGE_TABLE_ARMED);
    transport_remember(&table, PEER_INVITE_RDMA);
    assert_int_equal(header.progress, PAGE_TABLE_ARMED | PAGE_TABLE_RDMA);
    header.progress = 0;
    transport_remember(&table, PEER_INVITE_RDMA | PEER_INVITE_TCP);
    assert_int_equal(header.progress, PAGE_TABLE_TCP);
}

static gboolean accepts(const char *source, const char *peer, guint32 flags, char *ret_text)
{
    g_autofree PeerMessage *message = g_new0(PeerMessage, 1);
    Invitation invitation = {.message = message, .peer_host = peer};

    g_strlcpy(message->invite.source, source, sizeof message->invite.source);
    message->invite.flags = flags;
    return transport_accept(&control, &invitation, ret_text);
}

/* The address is that which the import would connect to. */
static void invitations_are_judged(void **state)
{
    char text[LIMIT_TEXT + 1];

    (void)state;
    assert_true(accepts(":1", "192.0.2.1", 0, text));
    assert_true(accepts(":1", "10.1.0.1", PEER_INVITE_TCP, text));
    assert_false(accepts(":1", "192.0.2.1", PEER_INVITE_RDMA, text));
    assert_non_null(strstr(text, "192.0.2.1, is in none of [rdma] networks = 10.0.0.0/8"));
    assert_false(accepts("192.0.2.2:1", "10.2.0.1", PEER_INVITE_RDMA, text));
    assert_non_null(strstr(text, "192.0.2.2"));
    networks_free(settings.rdma_networks.parsed);
    settings.rdma_networks.parsed = NULL;
    settings.rdma_networks.text = NULL;
    assert_false(accepts(":1", "10.2.0.1", PEER_INVITE_RDMA, text));
    assert_non_null(strstr(text, "off at the destination: set [rdma] networks"));
    assert_false(accepts(":1", "10.1.0.1", 0, text)); /* as it is configured */
    assert_null(strchr(text, '\n'));
    assert_true(accepts(":1", "10.1.1.1", 0, text));
}

static gboolean asks(const char *json, unsigned *ret_transport, char *ret_text)
{
    g_autoptr(JsonNode) node = json_from_string(json, NULL);

    assert_non_null(node);
    return transport_asked(&control, json_node_get_object(node), ret_transport, ret_text);
}

static void requests_are_read(void **state)
{
    static const char *const bad[] = {"{\"transport\":\"\"}", "{\"transport\":\"TCP\"}",
                                      "{\"transport\":1}", "{\"transport\":null}",
                                      "{\"transport\":{}}"};
    char text[LIMIT_TEXT + 1];
    unsigned transport;

    (void)state;
    assert_true(asks("{}", &transport, text));
    assert_int_equal(transport, IMPORT_TRANSPORT_AUTO);
    assert_true(asks("{\"transport\":\"auto\"}", &transport, text));
    assert_int_equal(transport, IMPORT_TRANSPORT_AUTO);
    assert_true(asks("{\"transport\":\"tcp\"}", &transport, text));
    assert_int_equal(transport, IMPORT_TRANSPORT_TCP);
    for (gsize i = 0; i < G_N_ELEMENTS(bad); i++) {
        assert_false(asks(bad[i], &transport, text));
        assert_non_null(strstr(text, "must be auto, tcp or rdma"));
    }
    networks_free(settings.rdma_networks.parsed);
    settings.rdma_networks.parsed = NULL;
    assert_false(asks("{\"transport\":\"rdma\"}", &transport, text));
    assert_non_null(strstr(text, "off at the source"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(imports_are_configured, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_wanted_is_found_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(invitations_are_judged, set_up, tear_down),
        cmocka_unit_test_setup_teardown(requests_are_read, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
