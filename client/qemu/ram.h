/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest RAM that QEMU has mapped and that libpostcopy has not been told of yet.
 *
 * Filled from within mmap() on any of QEMU's threads, emptied by the watcher.
 */
#ifndef POSTCOPY_QEMU_RAM_H
#define POSTCOPY_QEMU_RAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { RAM_MAX = 128 };

typedef struct RamBlock {
    void *address;
    uint64_t length;
    uint64_t page_size;
    uint64_t fd_offset;
    int fd; /* a dup */
} RamBlock;

/* Looks at a mapping just made.  True if it is guest RAM, or shows that there is some. */
bool ram_note(void *address, size_t length, int flags, int fd, off_t offset);

/* True if private memory that looks like guest RAM was mapped. */
bool ram_is_private(void);

/* Waits for a change, at most timeout_ms (negative: for ever).  False if there was none. */
bool ram_wait(int timeout_ms);

/* Takes all blocks out, with their fds.  Their number. */
size_t ram_take(RamBlock ret_blocks[RAM_MAX]);

/* Puts a block back that could not be handed on yet. */
void ram_put_back(const RamBlock *block);

#endif
