/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which transport a migration takes: what its driver wants, what both hosts are configured for, and what the
 * next daemon finds of it.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
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
    /* The invitation counts before all that, also one that asks for both; but TCP that is configured for. */
    assert_int_equal(chosen("10.2.0.1:16520", PEER_INVITE_RDMA), IMPORT_TRANSPORT_TCP);
    assert_int_equal(chosen("10.1.1.1:16520", PEER_INVITE_RDMA), IMPORT_TRANSPORT_TCP);
    assert_int_equal(chosen("10.1.0.1:16520", PEER_INVITE_RDMA), IMPORT_TRANSPORT_RDMA);
    settings.transport = IMPORT_TRANSPORT_AUTO;
    assert_int_equal(chosen("10.2.0.1:16520", PEER_INVITE_RDMA), IMPORT_TRANSPORT_RDMA);
    settings.transport = IMPORT_TRANSPORT_RDMA;
    assert_int_equal(chosen("10.2.0.1:16520", PEER_INVITE_TCP), IMPORT_TRANSPORT_TCP);
    assert_int_equal(chosen("10.1.0.1:16520", PEER_INVITE_TCP), IMPORT_TRANSPORT_TCP);
    assert_int_equal(chosen("10.1.0.1:16520", PEER_INVITE_TCP | PEER_INVITE_RDMA),
                     IMPORT_TRANSPORT_TCP);
    assert_int_equal(chosen("10.1.1.1:16520", PEER_INVITE_AWAIT), IMPORT_TRANSPORT_TCP);
}

/* Takes table. */
static unsigned adopted_from(int table, const char *source, guint32 progress)
{
    PageTableHeader header = {.progress = progress};
    ImportConfig config = {.transport = 99};

    g_strlcpy(header.source, source, sizeof header.source);
    assert_int_equal(write(table, &header, sizeof header), sizeof header);
    transport_configure_adopted(&control, table, &config);
    close(table);
    return config.transport;
}

static unsigned adopted(const char *source, guint32 progress)
{
    return adopted_from(memfd_create("table", MFD_CLOEXEC), source, progress);
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
    assert_int_equal(adopted("10.2.0.1:16520", PAGE_TABLE_RDMA), IMPORT_TRANSPORT_RDMA);
    /* Configured for TCP meanwhile, which cannot be a refusal any more. */
    assert_int_equal(adopted("10.1.1.1:16520", PAGE_TABLE_RDMA), IMPORT_TRANSPORT_TCP);
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

/* The control thread would wait for whoever serves such a file, which may be the client itself. */
static void what_is_no_memory_is_not_read(void **state)
{
    int file = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    (void)state;
    if (file < 0 || fcntl(file, F_GET_SEALS) >= 0) {
        print_message("skipped: here are no files that are not memory\n");
        skip();
    }
    assert_int_equal(adopted_from(file, "10.1.0.1:16520", PAGE_TABLE_TCP), IMPORT_TRANSPORT_AUTO);
}

static gboolean accepts(const char *source, const char *peer, guint32 flags, char *ret_text)
{
    g_autofree PeerMessage *message = g_new0(PeerMessage, 1);
    Invitation invitation = {.message = message, .peer_host = peer};

    g_strlcpy(message->invite.source, source, sizeof message->invite.source);
    message->invite.flags = flags;
    return transport_accept(&control, &invitation, ret_text);
}

static void distrust_all(void)
{
    networks_free(settings.rdma_networks.parsed);
    settings.rdma_networks.parsed = NULL;
    settings.rdma_networks.text = NULL;
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
    assert_non_null(strstr(text, ", or use --transport tcp"));
    assert_false(accepts("192.0.2.2:1", "10.2.0.1", PEER_INVITE_RDMA, text));
    assert_non_null(strstr(text, "192.0.2.2"));
    distrust_all();
    assert_false(accepts(":1", "10.2.0.1", PEER_INVITE_RDMA, text));
    assert_non_null(strstr(text, "off at the destination: set [rdma] networks"));
    assert_null(strchr(text, '\n'));
    assert_true(accepts(":1", "10.1.1.1", 0, text));
}

/* Nobody asked, so the line names the setting: --transport auto would only mean it again. */
static void who_insists_is_named(void **state)
{
    char text[LIMIT_TEXT + 1];

    (void)state;
    distrust_all();
    assert_false(accepts(":1", "10.1.0.1", 0, text));
    assert_non_null(strstr(text, "RDMA ([rdma] peers = rdma at the destination), which is off"));
    assert_non_null(strstr(text, "or change [rdma] peers there, or use --transport tcp"));
    settings.transport = IMPORT_TRANSPORT_RDMA;
    assert_false(accepts(":1", "192.0.2.1", 0, text));
    assert_non_null(strstr(text, "RDMA ([peer] transport = rdma at the destination), which"));
    assert_null(strstr(text, "auto"));
    assert_null(strchr(text, '\n'));
}

/* Whoever wants RDMA: TCP that is configured for forbids it at the destination… */
static void tcp_is_a_veto_at_the_destination(void **state)
{
    char text[LIMIT_TEXT + 1];

    (void)state;
    assert_true(accepts(":1", "10.1.1.1", 0, text));
    assert_true(accepts(":1", "10.1.1.1", PEER_INVITE_TCP, text));
    assert_true(accepts(":1", "10.1.1.1", PEER_INVITE_TCP | PEER_INVITE_RDMA, text));
    assert_false(accepts(":1", "10.1.1.1", PEER_INVITE_RDMA, text));
    assert_non_null(strstr(text, "[rdma] peers = tcp at the destination forbids with 10.1.1.1"));
    settings.transport = IMPORT_TRANSPORT_TCP;
    assert_false(accepts(":1", "10.2.0.1", PEER_INVITE_RDMA, text));
    assert_non_null(strstr(text, "[peer] transport = tcp at the destination forbids with 10.2"));
    assert_null(strchr(text, '\n'));
}

/* …and no destination reads by RDMA at a source that is configured for TCP with it. */
static void tcp_is_a_veto_at_the_source(void **state)
{
    char text[LIMIT_TEXT + 1];

    (void)state;
    assert_true(transport_lends(&settings, "10.2.0.1", text));
    assert_true(transport_lends(&settings, "10.1.0.1", text));
    assert_false(transport_lends(&settings, "10.1.1.1", text));
    assert_string_equal(text, "[rdma] peers = tcp at the source forbids RDMA with 10.1.1.1");
    assert_false(transport_lends(&settings, "192.0.2.1", text));
    assert_string_equal(text, "192.0.2.1 is in none of the source's [rdma] networks");
    settings.transport = IMPORT_TRANSPORT_TCP;
    assert_false(transport_lends(&settings, "10.2.0.1", text));
    assert_string_equal(text, "[peer] transport = tcp at the source forbids RDMA with 10.2.0.1");
    assert_true(transport_lends(&settings, "10.1.0.1", text));
    distrust_all();
    assert_false(transport_lends(&settings, "10.1.0.1", text));
    assert_non_null(strstr(text, "off at the source"));
}

/* A connection to a listener on 127.0.0.1, which is what an INVITE goes over. */
static int connected_socket(void)
{
    struct sockaddr_in here = {.sin_family = AF_INET};
    socklen_t length = sizeof here;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(listener, (const void *)&here, sizeof here), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (void *)&here, &length), 0);
    assert_int_equal(connect(fd, (const void *)&here, sizeof here), 0);
    close(accept(listener, NULL, NULL)); /* an end that is over still has an address */
    close(listener);
    return fd;
}

static void invitations_are_written(void **state)
{
    PeerSocket peer = {.fd = connected_socket(), .features = PEER_FEATURE_RDMA};
    char text[LIMIT_TEXT + 1];
    guint32 flags = 99;

    (void)state;
    assert_true(transport_invite(&settings, IMPORT_TRANSPORT_AUTO, &peer, &flags, text));
    assert_int_equal(flags, 0);
    assert_true(transport_invite(&settings, IMPORT_TRANSPORT_TCP, &peer, &flags, text));
    assert_int_equal(flags, PEER_INVITE_TCP);
    assert_false(transport_invite(&settings, IMPORT_TRANSPORT_RDMA, &peer, &flags, text));
    assert_non_null(strstr(text, "127.0.0.1, is in none of [rdma] networks = 10.0.0.0/8 at the "));
    assert_null(strstr(text, "= rdma"));
    settings.transport = IMPORT_TRANSPORT_RDMA;
    assert_false(transport_invite(&settings, IMPORT_TRANSPORT_AUTO, &peer, &flags, text));
    assert_non_null(strstr(text, "([peer] transport = rdma at the source)"));
    assert_non_null(strstr(text, "or change [peer] transport there, or use --transport tcp"));
    peer.features = 0;
    assert_false(transport_invite(&settings, IMPORT_TRANSPORT_AUTO, &peer, &flags, text));
    assert_non_null(strstr(text, "which the daemon at 127.0.0.1 does not know"));
    peer.features = PEER_FEATURE_RDMA;
    settings.transport = IMPORT_TRANSPORT_TCP;
    assert_false(transport_invite(&settings, IMPORT_TRANSPORT_RDMA, &peer, &flags, text));
    assert_non_null(strstr(text, "[peer] transport = tcp at the source forbids with 127.0.0.1"));
    assert_true(transport_invite(&settings, IMPORT_TRANSPORT_AUTO, &peer, &flags, text));
    assert_int_equal(flags, PEER_INVITE_TCP);
    close(peer.fd);
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
    distrust_all();
    assert_false(asks("{\"transport\":\"rdma\"}", &transport, text));
    assert_non_null(strstr(text, "off at the source"));
}

/* Before anything else that is lacking, as far as the other host is known. */
static void requests_hear_of_a_veto(void **state)
{
    char text[LIMIT_TEXT + 1];
    unsigned transport;

    (void)state;
    distrust_all();
    assert_false(asks("{\"transport\":\"rdma\",\"destination\":\"10.1.1.1:1\"}", &transport, text));
    assert_non_null(strstr(text, "[rdma] peers = tcp at the source forbids with 10.1.1.1: "));
    settings.transport = IMPORT_TRANSPORT_TCP;
    assert_false(asks("{\"transport\":\"rdma\",\"destination\":\"10.2.0.1:1\"}", &transport, text));
    assert_non_null(strstr(text, "[peer] transport = tcp at the source forbids with 10.2.0.1: "));
    assert_false(asks("{\"transport\":\"rdma\",\"destination\":\"10.1.0.1:1\"}", &transport, text));
    assert_null(strstr(text, "forbids"));
    /* A name may be of any host, and this one's peers are not all alike. */
    assert_false(asks("{\"transport\":\"rdma\",\"destination\":\"host:1\"}", &transport, text));
    assert_null(strstr(text, "forbids"));
    networks_free(settings.rdma_peers.parsed);
    settings.rdma_peers.parsed = NULL;
    assert_false(asks("{\"transport\":\"rdma\",\"destination\":\"host:1\"}", &transport, text));
    assert_non_null(strstr(text, "[peer] transport = tcp at the source forbids: "));
    assert_false(asks("{\"transport\":\"rdma\",\"destination\":7}", &transport, text));
    assert_non_null(strstr(text, "[peer] transport = tcp at the source forbids: "));
}

/* This host's wish for RDMA gives way to the source's TCP, and that is told. */
static void who_overrules_is_remembered(void **state)
{
    ImportConfig config = {.transport = 99};

    (void)state;
    transport_configure(&control, "10.1.0.1:1", PEER_INVITE_TCP, &config);
    assert_true(config.rdma_overruled);
    transport_configure(&control, "10.1.0.1:1", 0, &config);
    assert_false(config.rdma_overruled);
    transport_configure(&control, "10.2.0.1:1", PEER_INVITE_TCP, &config);
    assert_false(config.rdma_overruled);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(imports_are_configured, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_wanted_is_found_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_no_memory_is_not_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(invitations_are_judged, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_insists_is_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(tcp_is_a_veto_at_the_destination, set_up, tear_down),
        cmocka_unit_test_setup_teardown(tcp_is_a_veto_at_the_source, set_up, tear_down),
        cmocka_unit_test_setup_teardown(invitations_are_written, set_up, tear_down),
        cmocka_unit_test_setup_teardown(requests_are_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(requests_hear_of_a_veto, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_overrules_is_remembered, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
