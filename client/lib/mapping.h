/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the kernel says is mapped where, from /proc/self/maps and smaps.
 *
 * A VMM may have unmapped or replaced a region since it named it.  Punching a file that is no longer
 * guest memory would destroy something else, so the mapping is looked at before it is trusted.
 */
#ifndef POSTCOPY_MAPPING_H
#define POSTCOPY_MAPPING_H

#include <stdbool.h>
#include <sys/types.h>

#include "client/lib/reason.h"
#include "client/lib/region.h"

/* 0; -ESTALE if the region is not, or not as described, mapped; or why /proc cannot be read. */
int mapping_check(const Region *region, Reason *ret_reason);

/*
 * True if a part of the region is already kept from forked children (MADV_DONTFORK), or if that
 * cannot be told: then it is not ours to change back.
 */
bool mapping_is_dontfork(const Region *region);

/* What lies behind a range of memory. */
typedef struct MappedFile {
    dev_t device; /* and inode: both 0 if it is anonymous */
    ino_t inode;
    uint64_t offset; /* in that file, of the range's start */
    bool shared;
} MappedFile;

/*
 * 0 if all of the range is mapped, writable and of one kind: anonymous, or one file from one offset
 * on; -ESTALE if not; or why /proc cannot be read.  Any thread.
 */
int mapping_find(uint64_t start, uint64_t length, MappedFile *ret_file, Reason *ret_reason);

#endif
