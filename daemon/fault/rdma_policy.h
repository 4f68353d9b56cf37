/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether a connection to the source is to have RDMA, by how it went so far.  A device or a network that
 * breaks connection after connection must not keep a guest waiting: after three in a row an import that
 * may choose goes on by TCP alone, and tries again when it connects anew a minute later.  One that insists
 * goes on trying while no guest waits.  Behind the gate, where the guest can run nowhere else, it does so for 10 s:
 * then a guest's life comes before a preference, and it rests like the others.
 *
 * Pure: the clock is passed in.  The link's.
 */
#ifndef POSTCOPYD_FAULT_RDMA_POLICY_H
#define POSTCOPYD_FAULT_RDMA_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#define RDMA_POLICY_REST_NS UINT64_C(60000000000)
#define RDMA_POLICY_WAIT_NS UINT64_C(10000000000) /* of a guest, for one that insists */
#define RDMA_POLICY_WELL_NS UINT64_C(10000000000)
#define RDMA_POLICY_WELL    (UINT64_C(64) << 20)

enum { RDMA_POLICY_FAILURES = 3 };

typedef struct RdmaPolicy {
    bool insists;      /* RDMA or nothing */
    unsigned failures; /* in a row */
    uint64_t since_ns; /* of the first of them that found a guest waiting; 0: none did */
    uint64_t rest_ns;  /* TCP until then; 0: no */
    bool up;           /* this connection has it, */
    uint64_t up_ns;    /* since then, */
    uint64_t up_bytes; /* and so much had been READ before */
} RdmaPolicy;

void rdma_policy_init(RdmaPolicy *policy, bool insists);

/* A connection is to be made: with RDMA? */
bool rdma_policy_may_try(RdmaPolicy *policy, uint64_t now_ns);

/* And if it cannot have it: is it of no use, then?  False while the import rests from RDMA. */
bool rdma_policy_must(const RdmaPolicy *policy);

/* It has RDMA; bytes: READ by the import so far. */
void rdma_policy_begins(RdmaPolicy *policy, uint64_t now_ns, uint64_t bytes);

/* Now and then while it is up: once it went well for a while earlier failures are forgotten. */
void rdma_policy_goes_on(RdmaPolicy *policy, uint64_t now_ns, uint64_t bytes);

/*
 * The connection is gone, or RDMA could not be set up on it; failed: it was RDMA's fault.  guest_waits: the gate
 * is open, so that its guest can run nowhere else.  True: from now on the import rests from RDMA, which it did
 * not before.
 */
bool rdma_policy_ends(RdmaPolicy *policy, uint64_t now_ns, uint64_t bytes, bool failed,
                      bool guest_waits);

/* How long to wait before the next connection, for one that goes on trying; 0: not at all. */
unsigned rdma_policy_pause_ms(const RdmaPolicy *policy);

#endif
