/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a transport is asked for, and how people are told about it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "client/ctl/error.h"
#include "client/ctl/transport.h"

#define RDMA                                                                                     \
    "{\"transport\":{\"kind\":\"rdma\",\"wanted\":\"auto\",\"device\":\"rxe0\",\"reason\":\"\"," \
    "\"pairs\":3,\"pinned_bytes\":67108864,\"reads\":12,\"bytes\":3145728,\"landed_pages\":512," \
    "\"staged_pages\":256,\"spans\":2,\"failures\":0}}"
#define TCP(wanted, reads)                                  \
    "{\"transport\":{\"kind\":\"tcp\",\"wanted\":\"" wanted \
    "\",\"device\":\"\",\"reason\":\"the source refused\",\"reads\":" reads ",\"failures\":2}}"

static JsonNode *parse(const char *text)
{
    JsonNode *node = json_from_string(text, NULL);

    assert_non_null(node);
    return node;
}

/* Takes text. */
static void assert_text(char *text, const char *expected)
{
    if (expected)
        assert_string_equal(text, expected);
    else
        assert_null(text);
    g_free(text);
}

static void words_are_checked(void **state)
{
    static const char *const bad[] = {"", "RDMA", "roce", "auto ", "tcp,rdma"};

    (void)state;
    assert_true(transport_check_word(NULL, NULL));
    assert_true(transport_check_word("auto", NULL));
    assert_true(transport_check_word("tcp", NULL));
    assert_true(transport_check_word("rdma", NULL));
    for (gsize i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;

        assert_false(transport_check_word(bad[i], &error));
        assert_true(g_error_matches(error, CALL_ERROR, CALL_ERROR_USAGE));
        assert_non_null(strstr(error->message, "must be auto, tcp or rdma"));
    }
}

static void imports_are_described(void **state)
{
    g_autoptr(JsonNode) rdma = parse(RDMA), tcp = parse(TCP("auto", "0"));
    g_autoptr(JsonNode) fallen_back = parse(TCP("auto", "7")), silent = parse("{}");

    (void)state;
    assert_text(transport_word(json_node_get_object(rdma)), "rdma rxe0");
    assert_text(transport_word(json_node_get_object(tcp)), "tcp");
    assert_text(transport_word(json_node_get_object(silent)), "-");
    assert_text(transport_import_line(json_node_get_object(rdma)),
                "rdma by rxe0, pairs 3, spans 2, READs 12 of 3.00 MiB, pages landed 512, staged "
                "256, pinned 64.0 MiB");
    assert_text(transport_import_line(json_node_get_object(tcp)),
                "tcp (the source refused), failures 2");
    assert_text(transport_import_line(json_node_get_object(fallen_back)),
                "tcp (the source refused), pairs 0, spans 0, READs 7 of 0 B, pages landed 0, "
                "staged 0, pinned 0 B, failures 2");
    assert_text(transport_import_line(json_node_get_object(silent)), NULL);
}

static void remarks_are_for_those_who_set_it_up(void **state)
{
    g_autoptr(JsonNode) set_up = parse("{\"rdma\":{\"networks\":\"10.0.0.0/8\"}}");
    g_autoptr(JsonNode) not_set_up = parse("{\"rdma\":{\"networks\":\"\"}}"), old = parse("{}");
    g_autoptr(JsonNode) rdma = parse(RDMA), tcp = parse(TCP("auto", "0"));
    g_autoptr(JsonNode) wanted = parse(TCP("rdma", "0"));

    (void)state;
    assert_text(transport_remark(json_node_get_object(set_up), json_node_get_object(tcp)),
                "no RDMA: the source refused");
    assert_text(transport_remark(json_node_get_object(set_up), json_node_get_object(rdma)), "");
    assert_text(transport_remark(json_node_get_object(not_set_up), json_node_get_object(tcp)), "");
    assert_text(transport_remark(json_node_get_object(not_set_up), json_node_get_object(wanted)),
                "no RDMA: the source refused");
    assert_text(transport_remark(json_node_get_object(old), json_node_get_object(old)), "");
}

static void hosts_and_exports_are_described(void **state)
{
    g_autoptr(JsonNode) host = parse(
        "{\"rdma\":{\"devices\":[\"rxe0\",\"mlx5_0\"],\"networks\":\"10.0.0.0/8\","
        "\"addresses\":[\"10.0.0.1\"],\"pinned_bytes\":1048576,\"pinned_most_bytes\":1073741824}}");
    g_autoptr(JsonNode) bare = parse("{\"rdma\":{\"devices\":[],\"networks\":\"10.0.0.0/8\","
                                     "\"addresses\":[\"10.0.0.1\"]}}");
    g_autoptr(JsonNode) elsewhere =
        parse("{\"rdma\":{\"devices\":[\"rxe0\"],\"networks\":\"127.0.0.1\","
              "\"addresses\":[]}}");
    g_autoptr(JsonNode) tcp = parse("{\"rdma\":{\"devices\":[\"rxe0\"],\"networks\":\"10.0.0.0/8\","
                                    "\"addresses\":[\"10.0.0.1\"],\"transport\":\"tcp\"}}");
    g_autoptr(JsonNode) but_one = parse("{\"rdma\":{\"devices\":[\"rxe0\"],\"networks\":\"10.0.0.0/"
                                        "8\",\"addresses\":[\"10.0.0.1\"],"
                                        "\"transport\":\"tcp\",\"peers\":\"10.0.0.2=rdma\"}}");
    g_autoptr(JsonNode) off = parse("{\"rdma\":{\"devices\":[\"rxe0\"],\"networks\":\"\"}}");
    g_autoptr(JsonNode) export = parse(
        "{\"rdma\":{\"pairs\":2,\"spans\":5,\"pinned_bytes\":1024,\"reason\":\"no budget\"}}");
    g_autoptr(JsonNode) none =
        parse("{\"rdma\":{\"pairs\":0,\"spans\":0,\"pinned_bytes\":0,\"reason\":\"\"}}");

    (void)state;
    assert_text(transport_host_line(json_node_get_object(host)),
                "RDMA on 10.0.0.0/8 by rxe0, mlx5_0, pinned 1.00 MiB of 1.00 GiB");
    assert_text(transport_host_line(json_node_get_object(bare)),
                "RDMA on 10.0.0.0/8 by no device, pinned 0 B of 0 B");
    assert_text(transport_host_line(json_node_get_object(elsewhere)),
                "RDMA on 127.0.0.1 (no address of this host) by rxe0, pinned 0 B of 0 B");
    assert_text(transport_host_line(json_node_get_object(tcp)),
                "RDMA is off: [peer] transport = tcp");
    assert_text(transport_host_line(json_node_get_object(but_one)),
                "RDMA on 10.0.0.0/8 by rxe0, pinned 0 B of 0 B");
    assert_text(transport_host_line(json_node_get_object(off)), NULL);
    assert_text(transport_export_line(json_node_get_object(export)),
                "pairs 2, spans 5, pinned 1.00 KiB (no budget)");
    assert_text(transport_export_line(json_node_get_object(none)), NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_checked),
        cmocka_unit_test(imports_are_described),
        cmocka_unit_test(remarks_are_for_those_who_set_it_up),
        cmocka_unit_test(hosts_and_exports_are_described),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
