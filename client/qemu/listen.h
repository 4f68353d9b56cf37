/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The userfaultfd that QEMU believes to have while it receives memory by its own post-copy.
 *
 * With a plan at hand, QEMU's open gives it one end of a socket pair (the proxy), on which it reads
 * faults like on a userfaultfd; the real one is kept (the native uffd).  What QEMU then asks of the
 * proxy by ioctl() goes by address to one of the plan's own uffds, whose faults are the daemon's, or to
 * the native one.
 *
 * The assist thread makes a Listen and is the only one that frees it; QEMU's threads use it under a
 * lock that is held for no longer than one ioctl().  Nobody waits for the daemon here, but for a COPY during
 * the head start (hold.h).
 */
#ifndef POSTCOPY_QEMU_LISTEN_H
#define POSTCOPY_QEMU_LISTEN_H

#include <stdbool.h>
#include <stdint.h>

#include "client/qemu/hold.h"
#include "client/qemu/place.h"
#include "client/qemu/plan.h"

typedef struct Listen {
    Plan *plan;
    int wake;         /* an eventfd, the assist thread's: something of the below has changed */
    int pagemap;      /* of this process */
    int proxy;        /* QEMU's end, as long as it is open; -1 before; under the lock */
    int native;       /* constant once peer is set */
    int peer;         /* atomic: our end of the proxy, -1 before */
    bool lost;        /* atomic, the assist thread: the daemon's connection has ended */
    bool complete;    /* atomic: all of the plan was registered */
    bool initialized; /* atomic: the native uffd is; before that it polls as an error */
    bool thread_ids;  /* atomic: QEMU asked for them */
    uint64_t registered_at; /* atomic: when the first of the plan was; 0: not yet */
    uint64_t looked_ns;     /* atomic: time that QEMU spent in discard.c */
    uint64_t hot;           /* atomic: pages that discard.c marked */
    PlaceCounts counts;
    Hold hold;
} Listen;

/* QEMU's threads */

/* QEMU opened this userfaultfd with these flags of open(): the fd that it is to have. */
int listen_opened(int uffd, int flags);

/* True if an ioctl() on this fd is to go to listen_ioctl(). */
bool listen_owns(int fd);

/* The same of a COPY or ZEROPAGE, without a system call; false of any other request. */
bool listen_places(int fd, unsigned long request);

/* QEMU woke somebody by a userfaultfd that is not the proxy: a back end's, which waits for QEMU. */
void listen_others_wait(void);

/* A userfaultfd's ioctl(), on the proxy. */
int listen_ioctl(int fd, unsigned long request, void *argument);

/* True while there is a plan of which not all is registered. */
bool listen_is_planned(void);

/* The Listen, which stays until listen_release(); or NULL: nothing to release then. */
Listen *listen_hold(void);
void listen_release(void);

/* The assist thread */

/* Makes QEMU's next open find this plan, which becomes the Listen's.  NULL: out of memory or fds. */
Listen *listen_new(Plan *plan, int wake);

/* True if QEMU was given the proxy; else it never will be, and listen_free() is all that is left. */
bool listen_withdraw(Listen *listen);

/* Lets go of all memory, as closing QEMU's own userfaultfd would.  NULL is fine. */
void listen_free(Listen *listen);

/* How many of the plan's segments are registered. */
uint32_t listen_registered(Listen *listen);

/* All waiting faults of the plan's memory happen again. */
void listen_wake_all(Listen *listen);

#endif
