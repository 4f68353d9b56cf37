/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where in a QEMU's address space its guest's RAM lies, and what kind of memory it is: by /proc/PID/maps.
 *
 * Rules 11 and 13: nothing of it is mapped here.  What the process maps shared gets a file descriptor, and
 * only if it is a file in memory; all else is read as the process sees it.  Worker threads: reads files.
 */
#ifndef POSTCOPYD_QEMU_PROCESS_H
#define POSTCOPYD_QEMU_PROCESS_H

#include <glib.h>

#include "daemon/core/region.h"
#include "protocol/qmp/layout.h"

/* A line of /proc/PID/maps. */
typedef struct Mapping {
    guint64 start, end;
    guint64 offset;        /* of its first byte in the file */
    guint64 device, inode; /* of the file; inode 0: there is none */
    gboolean shared, readable;
} Mapping;

/* The whole text, an array of Mapping in ascending order; NULL: it is malformed. */
GArray *mappings_parse(const char *text);

/* Of a process; NULL with a reason in ret_text[LIMIT_TEXT + 1]. */
GArray *mappings_of_process(int pid, char *ret_text);

/* What a stretch of address space is: all of it mapped and readable, as one kind of memory. */
typedef struct Stretch {
    ClientRegionKind kind;
    const Mapping *first; /* the mapping in which it starts */
    guint64 offset;       /* shared: where it starts in the file */
} Stretch;

/*
 * Private memory and private mappings of files may follow one another: all of that is read as a private
 * file mapping is, as content.  0, or -EINVAL with a reason: a gap, or shared memory of which one file
 * does not hold all.
 */
int mappings_classify(const GArray *mappings, guint64 address, guint64 length, Stretch *ret_stretch,
                      char *ret_text);

/* The RAM of a process whose monitor told of these blocks (of RamBlock, with their addresses). 0 or
 * negative errno with a reason, then empty. */
int process_regions(int pid, const GPtrArray *blocks, RegionSet *ret_regions, char *ret_text);

#endif
