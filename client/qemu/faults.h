/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Carries faults to QEMU's own fault thread through the proxy: the native uffd's always, those of the
 * plan's memory while relay.h says so.  The assist thread's; nothing in here waits.
 */
#ifndef POSTCOPY_QEMU_FAULTS_H
#define POSTCOPY_QEMU_FAULTS_H

#include <linux/userfaultfd.h>
#include <poll.h>

#include "client/qemu/listen.h"
#include "client/qemu/relay.h"

enum {
    FAULTS_PENDING = 32,
    FAULTS_POLLS = LIMIT_SHARDS + 2,
};

typedef struct Faults {
    Listen *listen;
    Relay relay;
    size_t next, n; /* of pending: read, and not sent yet as QEMU has not kept up */
    struct uffd_msg pending[FAULTS_PENDING];
    bool gone;                             /* QEMU closed its end */
    uint64_t native, relayed;              /* faults */
    unsigned entered;                      /* how often the relay began */
    uint64_t readable_since[LIMIT_SHARDS]; /* by segment; 0: was not, at the last tick */
    uint64_t reads[PAGE_TABLE_BUSY];       /* the daemon's, at the last tick */
    struct pollfd samples[LIMIT_SHARDS];
} Faults;

void faults_init(Faults *faults, Listen *listen);

/* The decision, every 10 ms while memory is registered; connected: to the daemon. */
void faults_tick(Faults *faults, uint64_t now, bool connected);

/* What to wait for: so many of polls. */
size_t faults_polls(const Faults *faults, struct pollfd polls[FAULTS_POLLS]);

/* Carries on what those have brought. */
void faults_forward(Faults *faults, const struct pollfd *polls, size_t n);

#endif
