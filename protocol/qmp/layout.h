/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest's RAM as QEMU's human monitor prints it.  Text in, blocks out: nothing here talks to
 * QEMU.  Blocks are told apart by their ids and guest physical addresses, never by their order.
 */
#ifndef POSTCOPYD_QMP_LAYOUT_H
#define POSTCOPYD_QMP_LAYOUT_H

#include <glib.h>

typedef struct RamBlock {
    char *id;
    guint64 length; /* bytes in use */
    guint64 page_size;
    gboolean placed;       /* the guest sees at least a piece of it: the rest is known */
    guint64 guest_address; /* of the block's first byte */
    guint64 piece_address; /* guest address of the piece with the lowest offset */
    guint64 piece_offset;  /* and that offset */
    guint64 address;       /* of the block's first byte in QEMU's address space; 0 until asked */
} RamBlock;

void ram_block_free(RamBlock *block);

/* The blocks of "info ramblock", an array of RamBlock. */
GPtrArray *layout_parse_blocks(const char *text, GError **error);

/* Finds the blocks in view "memory" of "info mtree -f"; what it does not show stays unplaced. */
gboolean layout_place(GPtrArray *blocks, const char *text, GError **error);

/* The host address in what "gpa2hva" printed, which must be about the block with this id. */
gboolean layout_parse_address(const char *text, const char *id, guint64 *ret_address,
                              GError **error);

/* The block with this id, NULL if there is none. */
RamBlock *layout_find(const GPtrArray *blocks, const char *id);

/* Whether both sides have the same blocks at the same places; the error names the difference. */
gboolean layout_compare(const GPtrArray *source, const GPtrArray *destination, GError **error);

#endif
