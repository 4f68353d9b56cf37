/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "protocol/qmp/layout.h"

#include <inttypes.h>
#include <string.h>

#include "protocol/qmp/error.h"

/* Far beyond what any QEMU prints, but for one that wants to keep us busy. */
enum {
    LINE_MAX_BYTES = 1024,
    BLOCKS_MAX = 1024,
    VIEW_ROWS_MAX = 8192,
};

void ram_block_free(RamBlock *block)
{
    if (!block)
        return;
    g_free(block->id);
    g_free(block);
}

static guint64 unit_size(const char *unit)
{
    static const struct {
        const char *name;
        guint64 size;
    } units[] = {{"B", 1},
                 {"KiB", G_GUINT64_CONSTANT(1) << 10},
                 {"MiB", G_GUINT64_CONSTANT(1) << 20},
                 {"GiB", G_GUINT64_CONSTANT(1) << 30}};

    for (guint i = 0; i < G_N_ELEMENTS(units); i++)
        if (strcmp(units[i].name, unit) == 0)
            return units[i].size;
    return 0;
}

/* Cuts the first line off a text that is left, in place; NULL at its end. */
static char *next_line(char **text)
{
    char *line = *text;
    char *end = line ? strchr(line, '\n') : NULL;

    if (end)
        *end = '\0';
    *text = end ? end + 1 : NULL;
    return line;
}

static gboolean fail_endless(const char *command, GError **error)
{
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "\"%s\" prints more than any QEMU would",
                command);
    return FALSE;
}

/* The words of a line; the caller's. */
static GStrv split_words(const char *line)
{
    g_auto(GStrv) parts = g_strsplit_set(line, " \t\r", -1);
    GPtrArray *words = g_ptr_array_new();

    for (guint i = 0; parts[i]; i++)
        if (*parts[i])
            g_ptr_array_add(words, g_strdup(parts[i]));
    g_ptr_array_add(words, NULL);
    return (GStrv)g_ptr_array_free(words, FALSE);
}

static gboolean parse_hex(const char *word, guint64 *ret)
{
    const char *digits = g_str_has_prefix(word, "0x") ? word + 2 : word;

    return g_ascii_string_to_unsigned(digits, 16, 0, G_MAXUINT64, ret, NULL);
}

/* "4 KiB", as two words. */
static gboolean parse_page_size(char *const *words, guint64 *ret)
{
    guint64 unit = words[0] && words[1] ? unit_size(words[1]) : 0;

    if (!unit || !g_ascii_string_to_unsigned(words[0], 10, 1, 1 << 20, ret, NULL))
        return FALSE;
    *ret *= unit;
    return TRUE;
}

/* One row: name, page size, offset, used, total, and from QEMU 9 on further columns. */
static RamBlock *parse_block(const char *line)
{
    g_auto(GStrv) words = split_words(line);
    guint64 page_size, length;
    RamBlock *block;

    if (g_strv_length(words) < 6 || !parse_page_size(words + 1, &page_size) ||
        !parse_hex(words[4], &length))
        return NULL;
    block = g_new0(RamBlock, 1);
    block->id = g_strdup(words[0]);
    block->page_size = page_size;
    block->length = length;
    return block;
}

static gboolean is_blank(const char *line)
{
    return line[strspn(line, " \t\r")] == '\0';
}

/* A backend that no device uses yet: its row has no name. */
static gboolean is_nameless(const char *line)
{
    g_auto(GStrv) words = split_words(line);
    guint64 page_size;

    return parse_page_size(words, &page_size);
}

/* Adds what the line shows, if anything. */
static gboolean add_block(GPtrArray *blocks, const char *line, GError **error)
{
    RamBlock *block;

    if (strlen(line) > LINE_MAX_BYTES || blocks->len >= BLOCKS_MAX)
        return fail_endless("info ramblock", error);
    if (is_blank(line) || is_nameless(line))
        return TRUE;
    block = parse_block(line);
    if (block) {
        g_ptr_array_add(blocks, block);
        return TRUE;
    }
    if (blocks->len == 0 && strstr(line, "Block Name"))
        return TRUE;
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                "\"info ramblock\" has a line that is not understood: %.200s", line);
    return FALSE;
}

GPtrArray *layout_parse_blocks(const char *text, GError **error)
{
    g_autoptr(GPtrArray) blocks = g_ptr_array_new_with_free_func((GDestroyNotify)ram_block_free);
    g_autofree char *copy = g_strdup(text);
    char *left = copy, *line;

    while ((line = next_line(&left)))
        if (!add_block(blocks, line, error))
            return NULL;
    if (blocks->len == 0) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "\"info ramblock\" names no RAM");
        return NULL;
    }
    return g_steal_pointer(&blocks);
}

RamBlock *layout_find(const GPtrArray *blocks, const char *id)
{
    for (guint i = 0; i < blocks->len; i++) {
        RamBlock *block = g_ptr_array_index(blocks, i);

        if (strcmp(block->id, id) == 0)
            return block;
    }
    return NULL;
}

/* The block whose name begins this text, as a whole word; what follows it goes to ret_rest. */
static RamBlock *find_named(GPtrArray *blocks, const char *text, const char **ret_rest)
{
    for (guint i = 0; i < blocks->len; i++) {
        RamBlock *block = g_ptr_array_index(blocks, i);
        gsize length = strlen(block->id);

        *ret_rest = text + length;
        if (strncmp(text, block->id, length) == 0 && strchr(" \r", text[length]))
            return block;
    }
    return NULL;
}

/*
 * The block that this row of a view shows, NULL if it shows no RAM block.  A row goes
 * "START-END (prio P, KIND): NAME[ @OFFSET][ ACCELERATOR]".
 */
static RamBlock *parse_piece(GPtrArray *blocks, const char *line, guint64 *ret_start,
                             guint64 *ret_offset)
{
    const char *name = strstr(line, "): ");
    const char *rest;
    RamBlock *block;
    char *end;

    *ret_start = g_ascii_strtoull(line, &end, 16);
    if (!name || end == line || *end != '-')
        return NULL;
    block = find_named(blocks, name + strlen("): "), &rest);
    if (block)
        *ret_offset =
            g_str_has_prefix(rest, " @") ? g_ascii_strtoull(rest + strlen(" @"), NULL, 16) : 0;
    return block;
}

/* Other pieces of a block may be mirrors of its beginning elsewhere; the lowest address counts. */
static void place_piece(RamBlock *block, guint64 start, guint64 offset)
{
    if (offset > start)
        return;
    if (block->placed && (offset > block->piece_offset ||
                          (offset == block->piece_offset && start >= block->piece_address)))
        return;
    block->placed = TRUE;
    block->piece_address = start;
    block->piece_offset = offset;
    block->guest_address = start - offset;
}

gboolean layout_place(GPtrArray *blocks, const char *text, GError **error)
{
    g_autofree char *copy = g_strdup(text);
    gboolean seen = FALSE, inside = FALSE;
    char *left = copy, *line;
    guint rows = 0;

    while ((line = next_line(&left))) {
        guint64 start, offset;
        RamBlock *block;

        if (inside && ++rows > VIEW_ROWS_MAX)
            return fail_endless("info mtree -f", error);
        if (g_str_has_prefix(line, "FlatView"))
            inside = FALSE;
        else if (!seen && strstr(line, "AS \"memory\""))
            seen = inside = TRUE;
        else if (inside && (block = parse_piece(blocks, line, &start, &offset)))
            place_piece(block, start, offset);
    }
    if (!seen)
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                    "\"info mtree -f\" shows no address space \"memory\"");
    return seen;
}

/* "Host virtual address for 0xADDRESS (NAME) is 0xADDRESS". */
gboolean layout_parse_address(const char *text, const char *id, guint64 *ret_address,
                              GError **error)
{
    g_autofree char *named = g_strdup_printf(" (%s) is 0x", id);
    const char *found = strstr(text, named);

    *ret_address = found ? g_ascii_strtoull(found + strlen(named), NULL, 16) : 0;
    if (*ret_address && g_str_has_prefix(text, "Host virtual address for "))
        return TRUE;
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                "QEMU does not tell where RAM '%s' lies: %.200s", id, text);
    return FALSE;
}

static gboolean compare_number(const char *id, const char *what, guint64 source,
                               guint64 destination, GError **error)
{
    if (source == destination)
        return TRUE;
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                "RAM '%s' differs: %s 0x%" PRIx64 " on the source, 0x%" PRIx64
                " on the destination; start both QEMUs with the same memory options",
                id, what, source, destination);
    return FALSE;
}

static gboolean compare_block(const RamBlock *source, const RamBlock *destination, GError **error)
{
    return compare_number(source->id, "size", source->length, destination->length, error) &&
           compare_number(source->id, "page size", source->page_size, destination->page_size,
                          error) &&
           compare_number(source->id, "guest address", source->guest_address,
                          destination->guest_address, error);
}

static gboolean fail_lonely(const RamBlock *block, const char *side, const char *other,
                            GError **error)
{
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                "RAM '%s' exists on the %s only, not on the %s; start both QEMUs with the same "
                "memory options",
                block->id, side, other);
    return FALSE;
}

gboolean layout_compare(const GPtrArray *source, const GPtrArray *destination, GError **error)
{
    for (guint i = 0; i < source->len; i++) {
        const RamBlock *block = g_ptr_array_index(source, i);
        const RamBlock *other = layout_find(destination, block->id);

        if (!other)
            return fail_lonely(block, "source", "destination", error);
        if (!compare_block(block, other, error))
            return FALSE;
    }
    for (guint i = 0; i < destination->len; i++) {
        const RamBlock *block = g_ptr_array_index(destination, i);

        if (!layout_find(source, block->id))
            return fail_lonely(block, "destination", "source", error);
    }
    return TRUE;
}
