/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Our element in a libvirt domain's metadata: whether the domain takes part in post-copy by us, the secret by
 * which its new host may ask for its memory, and whether its QEMU may have x-ignore-shared on.
 * Text in, text out; any thread.
 */
#ifndef POSTCOPYD_QEMU_MARK_H
#define POSTCOPYD_QEMU_MARK_H

#include <glib.h>

#include "protocol/limits.h"

#define MARK_NAMESPACE "urn:postcopyd:domain:1"
#define MARK_PREFIX    "postcopyd"

typedef enum MarkEnabled { MARK_UNSET, MARK_YES, MARK_NO } MarkEnabled;

/* All zero: a domain without the element. */
typedef struct Mark {
    MarkEnabled enabled;
    gboolean has_token;
    gboolean ignore_shared;
    guint8 token[LIMIT_TOKEN];
} Mark;

/*
 * Reads the element as libvirt gives it.  FALSE, with enabled MARK_NO: it is not one of ours, or says
 * something nobody knows; such a domain is left alone.  A token that is none reads as no token.
 */
gboolean mark_parse(const char *xml, Mark *ret_mark);

/*
 * The element as libvirt wants it, the caller's; NULL if there is nothing to say.  before is the element
 * that is there, or NULL: what somebody else put into it stays.
 */
char *mark_write(const Mark *mark, const char *before);

/* Whether the domain takes part; all: those take part too that say nothing. */
gboolean mark_takes_part(const Mark *mark, gboolean all);

#endif
