/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "protocol/qmp/blocks.h"

#include <inttypes.h>
#include <string.h>

#include "protocol/limits.h"
#include "protocol/qmp/error.h"
#include "protocol/qmp/json.h"

/* From this version on x-ignore-shared leaves out named files only, not memfds. */
enum { QEMU_NAMED_ONLY = 8001 };

typedef struct BlocksQuery {
    const Monitor *monitor;
    const char *word;
    GPtrArray *all; /* of RamBlock */
} BlocksQuery;

static char *backend_type(const Monitor *monitor, const char *id)
{
    JsonObject *arguments = json_object_new();
    g_autoptr(JsonNode) answer = NULL;
    JsonArray *objects;

    json_object_set_string_member(arguments, "path", "/objects");
    answer = monitor_call(monitor, "qom-list", arguments, NULL);
    objects = node_array(answer);
    for (guint i = 0; i < element_count(objects); i++)
        if (strcmp(member_string(element_object(objects, i), "name"), id) == 0)
            return g_strdup(member_string(element_object(objects, i), "type"));
    return g_strdup("");
}

static gboolean refuse(const BlocksQuery *query, const char *id, const char *why,
                       const char *instead, GError **error)
{
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                "RAM '%s' of the %s %s; start QEMU with -object %s and -machine memory-backend=ID "
                "(or -numa node,memdev=ID)",
                id, query->word, why, instead);
    return FALSE;
}

static gboolean check_backend(const BlocksQuery *query, JsonObject *memdev, GError **error)
{
    static const char memfd[] = "memory-backend-memfd,id=ID,size=SIZE,share=on";
    static const char file[] =
        "memory-backend-file,id=ID,size=SIZE,share=on,mem-path=FILE (on a tmpfs or hugetlbfs)";
    const char *id = member_string(memdev, "id");
    g_autofree char *type = backend_type(query->monitor, id);

    if (!member_bool(memdev, "share"))
        return refuse(query, id, "is private, only shared memory can be served", memfd, error);
    if (strstr(type, "memory-backend-ram"))
        return refuse(query, id, "has no file behind it", memfd, error);
    if (strstr(type, "memory-backend-memfd") && query->monitor->version >= QEMU_NAMED_ONLY)
        return refuse(query, id, "is a memfd, which this version of QEMU puts into its own stream",
                      file, error);
    return TRUE;
}

/* A block is named like its backend, or by the backend's whole path. */
static RamBlock *find_block(const GPtrArray *blocks, const char *id)
{
    g_autofree char *path = g_strconcat("/objects/", id, NULL);
    RamBlock *block = layout_find(blocks, id);

    return block ? block : layout_find(blocks, path);
}

static gboolean ask_address(const BlocksQuery *query, RamBlock *block, GError **error)
{
    g_autofree char *line = g_strdup_printf("gpa2hva 0x%" PRIx64, block->piece_address);
    g_autofree char *text = monitor_human(query->monitor, line, error);
    guint64 address;

    if (!text || !layout_parse_address(text, block->id, &address, error))
        return FALSE;
    block->address = address - block->piece_offset;
    return TRUE;
}

/* The block of a backend, taken out of query->all; the caller's. */
static RamBlock *query_block(BlocksQuery *query, JsonObject *memdev, GError **error)
{
    const char *id = member_string(memdev, "id");
    RamBlock *block = find_block(query->all, id);
    guint index;

    if (!block || !block->placed) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                    "memory backend '%s' of the %s is not part of the guest's memory; remove it "
                    "before migrating",
                    id, query->word);
        return NULL;
    }
    if (!ask_address(query, block, error))
        return NULL;
    g_ptr_array_find(query->all, block, &index);
    return g_ptr_array_steal_index_fast(query->all, index);
}

static GPtrArray *query_all(const Monitor *monitor, GError **error)
{
    g_autofree char *ramblock = monitor_human(monitor, "info ramblock", error);
    g_autofree char *mtree = ramblock ? monitor_human(monitor, "info mtree -f", error) : NULL;
    g_autoptr(GPtrArray) blocks = mtree ? layout_parse_blocks(ramblock, error) : NULL;

    if (!blocks || !layout_place(blocks, mtree, error))
        return NULL;
    return g_steal_pointer(&blocks);
}

GPtrArray *blocks_query(const Monitor *monitor, const char *word, GError **error)
{
    g_autoptr(GPtrArray) all = query_all(monitor, error);
    g_autoptr(GPtrArray) blocks = g_ptr_array_new_with_free_func((GDestroyNotify)ram_block_free);
    g_autoptr(JsonNode) answer = all ? monitor_call(monitor, "query-memdev", NULL, error) : NULL;
    BlocksQuery query = {.monitor = monitor, .word = word, .all = all};
    JsonArray *memdevs = node_array(answer);

    if (!answer)
        return NULL;
    if (element_count(memdevs) == 0) {
        refuse(&query, "main", "is no memory backend",
               "memory-backend-memfd,id=ID,size=SIZE,share=on", error);
        return NULL;
    }
    for (guint i = 0; i < element_count(memdevs); i++) {
        RamBlock *block;

        if (!check_backend(&query, element_object(memdevs, i), error))
            return NULL;
        block = query_block(&query, element_object(memdevs, i), error);
        if (!block)
            return NULL;
        g_ptr_array_add(blocks, block);
    }
    return g_steal_pointer(&blocks);
}

GPtrArray *blocks_query_any(const Monitor *monitor, guint64 least, GError **error)
{
    g_autoptr(GPtrArray) all = query_all(monitor, error);
    BlocksQuery query = {.monitor = monitor, .word = "guest", .all = all};

    if (!all)
        return NULL;
    for (guint i = all->len; i-- > 0;) {
        const RamBlock *block = g_ptr_array_index(all, i);

        if (!block->placed || block->length < least)
            g_ptr_array_remove_index(all, i);
    }
    /* Each one costs a question. */
    if (all->len > LIMIT_REGIONS) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                    "the guest's memory is in %u blocks; at most %d can be served", all->len,
                    LIMIT_REGIONS);
        return NULL;
    }
    for (guint i = 0; i < all->len; i++)
        if (!ask_address(&query, g_ptr_array_index(all, i), error))
            return NULL;
    return g_steal_pointer(&all);
}
