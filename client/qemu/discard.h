/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What QEMU discards before it listens: pages that came during pre-copy and were written at the source
 * since.  They are the guest's hot set, and are marked in the page table so that the daemon fetches
 * them first.  Called on QEMU's threads right before a discard; never takes long, keeps errno.
 */
#ifndef POSTCOPY_QEMU_DISCARD_H
#define POSTCOPY_QEMU_DISCARD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* False unless there is a plan of which not all is registered: then the others do nothing. */
bool discard_is_watched(void);

/* madvise(MADV_DONTNEED or MADV_REMOVE) of this memory is about to be called. */
void discard_memory(const void *address, size_t length);

/* fallocate(FALLOC_FL_PUNCH_HOLE) of this file is. */
void discard_file(int fd, off_t offset, off_t length);

#endif
