/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an import of assist mode owes to QEMU (rule 9): QEMU's own post-copy goes on beside it, and takes over
 * whatever it does not resolve in time.  So it says in the page table's header whether it serves, since
 * when the oldest fault that it read waits, and keeps its hands off while the client relays.
 *
 * Nothing of this is there for an import of direct mode: its resolvers have no AssistWatch.
 */
#ifndef POSTCOPYD_FAULT_ASSIST_H
#define POSTCOPYD_FAULT_ASSIST_H

#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/fault/pending.h"

struct Import;
struct Resolver;
struct Shard;

typedef struct AssistWatch AssistWatch;

enum { ASSIST_TICK_MS = 10 };

/* Says whether faults are read and resolved from now on; never of an import that is halted or withdrawn.
 * The link's thread, and whoever halts the import. */
void assist_set_serving(struct Import *import, bool serving);

/* It serves no more, for good; nothing of a direct import.  Any thread. */
void assist_withdraw(struct Import *import);

/* QEMU has all memory: it serves no more.  The control thread. */
void assist_complete(struct Import *import);

/* Of a resolver, before it runs. NULL: no memory. */
AssistWatch *assist_watch_new(void);

/* The rest is for the resolver's own thread, with its AssistWatch. */

/* False: the client relays, or too many faults wait: to be asked again after ASSIST_TICK_MS.  Or it serves
 * no more. */
bool assist_may_read(const struct Resolver *resolver);

/* Right before it reads a uffd, and after it, with what came. */
void assist_before_read(struct Resolver *resolver);
void assist_after_read(struct Resolver *resolver, const struct Shard *shard,
                       const struct uffd_msg *messages, unsigned n);

/* Once a loop: forgets what is resolved, and asks again for what was given back. */
void assist_review(struct Resolver *resolver);

/* How long it may sleep at most; -1: for ever. */
int assist_patience_ms(const struct Resolver *resolver);

/* --- for placement.c and those who fetch --------------------------------------------------- */

/* These pages, which are REQUESTED, will not be placed: QEMU brings them, or a later fault. */
void assist_give_back(struct Import *import, uint32_t region, uint64_t page, uint64_t count);

#endif
