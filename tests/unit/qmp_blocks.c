/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a guest's RAM is asked about, of a monitor that is played. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/limits.h"
#include "protocol/qmp/blocks.h"
#include "protocol/qmp/json.h"

/* A QEMU with so many blocks of 1 MiB, one after the other. */
typedef struct Played {
    guint blocks;
    guint asked; /* where one of them lies */
    gboolean share;
    const char *backend; /* of b0; NULL: none is a backend */
} Played;

static char *info_ramblock(const Played *played)
{
    GString *text = g_string_new("Block Name PSize Offset Used Total\r\n");

    for (guint i = 0; i < played->blocks; i++)
        g_string_append_printf(text, "b%u 4 KiB 0x0 0x100000 0x100000\r\n", i);
    return g_string_free(text, FALSE);
}

static char *info_mtree(const Played *played)
{
    GString *text = g_string_new("FlatView #0\r\n AS \"memory\", root: system\r\n");

    for (guint i = 0; i < played->blocks; i++)
        g_string_append_printf(text, "  %x00000-%xfffff (prio 0, ram): b%u\r\n", i, i, i);
    return g_string_free(text, FALSE);
}

static JsonNode *parsed(const char *text)
{
    JsonNode *node = json_from_string(text, NULL);

    assert_non_null(node);
    return node;
}

static JsonNode *backends(const Played *played, const char *command)
{
    g_autofree char *text =
        strcmp(command, "qom-list") == 0
            ? g_strdup_printf("[{\"name\":\"b0\",\"type\":\"child<%s>\"}]", played->backend)
            : g_strdup_printf("[{\"id\":\"b0\",\"share\":%s}]", played->share ? "true" : "false");

    return parsed(played->backend ? text : "[]");
}

static JsonNode *call(void *user, const char *command, JsonObject *arguments, GError **error)
{
    g_autofree char *line = g_strdup(arguments ? member_string(arguments, "command-line") : "");
    g_autofree char *text = NULL;
    Played *played = user;
    guint64 address;

    (void)error;
    if (arguments)
        json_object_unref(arguments);
    if (strcmp(command, "human-monitor-command") != 0)
        return backends(played, command);
    if (strcmp(line, "info ramblock") == 0) {
        text = info_ramblock(played);
    } else if (strcmp(line, "info mtree -f") == 0) {
        text = info_mtree(played);
    } else {
        assert_true(g_str_has_prefix(line, "gpa2hva 0x"));
        address = g_ascii_strtoull(line + strlen("gpa2hva 0x"), NULL, 16);
        played->asked++;
        text = g_strdup_printf("Host virtual address for 0x%x (b%u) is 0x7f00%08x\r\n",
                               (guint)address, (guint)(address >> 20), (guint)address);
    }
    return json_node_init_string(json_node_alloc(), text);
}

static void as_many_as_can_be_served(void **state)
{
    Played played = {.blocks = LIMIT_REGIONS};
    Monitor monitor = {.call = call, .user = &played};
    g_autoptr(GPtrArray) blocks = blocks_query_any(&monitor, 1 << 20, NULL);

    (void)state;
    assert_non_null(blocks);
    assert_int_equal(blocks->len, LIMIT_REGIONS);
    assert_int_equal(played.asked, LIMIT_REGIONS);
    for (guint i = 0; i < blocks->len; i++) {
        const RamBlock *block = blocks->pdata[i];

        assert_int_equal(block->address, UINT64_C(0x7f0000000000) + block->guest_address);
    }
}

/* Every one is a question that may take its time. */
static void more_are_not_asked_about(void **state)
{
    Played played = {.blocks = LIMIT_REGIONS + 1};
    Monitor monitor = {.call = call, .user = &played};
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) blocks = blocks_query_any(&monitor, 1 << 20, &error);

    (void)state;
    assert_null(blocks);
    assert_non_null(strstr(error->message, "129 blocks; at most 128"));
    assert_int_equal(played.asked, 0);
    /* Small ones do not count. */
    g_clear_error(&error);
    blocks = blocks_query_any(&monitor, 2 << 20, &error);
    assert_non_null(blocks);
    assert_int_equal(blocks->len, 0);
}

static void refused(const char *backend, gboolean share, int version, const char *why)
{
    Played played = {.blocks = 1, .backend = backend, .share = share};
    Monitor monitor = {.call = call, .user = &played, .version = version};
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) blocks = blocks_query(&monitor, "source", &error);

    assert_null(blocks);
    assert_non_null(strstr(error->message, why));
}

/* In direct mode all memory comes through us, so none of it may be in QEMU's own stream. */
static void only_what_leaves_the_stream(void **state)
{
    Played played = {.blocks = 1, .backend = "memory-backend-memfd", .share = TRUE};
    Monitor monitor = {.call = call, .user = &played, .version = 8000};
    g_autoptr(GPtrArray) old = blocks_query(&monitor, "source", NULL);
    g_autoptr(GPtrArray) file = NULL;

    (void)state;
    assert_int_equal(old->len, 1);
    refused("memory-backend-memfd", TRUE, 8001, "is a memfd, which this version of QEMU puts into");
    refused("memory-backend-memfd", FALSE, 8000, "is private");
    refused("memory-backend-ram", TRUE, 8000, "has no file");
    refused(NULL, TRUE, 8000, "no memory backend");
    played.backend = "memory-backend-file";
    monitor.version = 10000;
    file = blocks_query(&monitor, "source", NULL);
    assert_int_equal(file->len, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_many_as_can_be_served),
        cmocka_unit_test(only_what_leaves_the_stream),
        cmocka_unit_test(more_are_not_asked_about),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
