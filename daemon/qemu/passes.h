/* SPDX-License-Identifier: GPL-2.0-or-later */
/* When pre-copy has gone on for long enough. Of one thread, or under its owner's lock. */
#ifndef POSTCOPYD_QEMU_PASSES_H
#define POSTCOPYD_QEMU_PASSES_H

#include <stdbool.h>

/* What is known of a domain's migration; all zero before the first. */
typedef struct Passes {
    int last;     /* the newest pass that was begun */
    bool decided; /* for this migration */
} Passes;

/*
 * A pass has begun.  True once a migration: it is time for post-copy, as start passes have begun (0:
 * never).  A number that does not grow is of another migration; libvirt does not tell of all that end.
 */
bool passes_begin(Passes *passes, int pass, unsigned start);

#endif
