/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Both ends of an RDMA connection in one process: "near" READs, "far" is read.  Each has a device, and so a
 * protection domain, of its own, found by its end of a TCP connection between two local addresses.
 */
#ifndef POSTCOPYD_TESTS_RDMA_RIG_H
#define POSTCOPYD_TESTS_RDMA_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/transport/rdma_pair.h"

enum {
    RIG_DEPTH = 64,
    RIG_LENGTH = 8 << 20, /* bytes of memory that can be READ, and that READs land in */
    RIG_PAGE = 4096,
    RIG_BOUND_MS = 4000, /* a failure takes longer than that: it is not bounded */
};

#define RIG_BUDGET  (UINT64_C(64) << 20)
#define RIG_PATTERN 0xa5

typedef struct Rig {
    int near_socket, far_socket;
    RdmaBudget budget;
    RdmaDevice *near, *far;
    RdmaPair *reader, *answerer;
    uint64_t *source; /* PROT_READ, as an export has it: word i is rig_word(i) */
    uint8_t *target;  /* RIG_PATTERN all over */
    RdmaMemory *exported, *landing;
} Rig;

/* The two local addresses, set once by main(). */
extern const char *rig_near_host, *rig_far_host;

/* cmocka's set-up and tear-down of a connected Rig. */
int rig_up(void **state);
int rig_down(void **state);

uint64_t rig_word(uint64_t index);

/* A TCP connection between two addresses of this host; family AF_INET6 takes IPv4 ones mapped, too.
 * scope: of link-local addresses, 0 otherwise. */
void rig_sockets(int family, unsigned scope, const char *near, const char *far, int *ret_near,
                 int *ret_far);

RdmaDevice *rig_open(Rig *rig, int socket);
RdmaPair *rig_pair(RdmaDevice *device, unsigned depth);
void rig_connect(RdmaPair *one, RdmaPair *other);

/* Memory of a file with rig_word()s, and its mapping of which nothing can be written. */
uint64_t *rig_source(void);

/* A READ of length bytes at offset, to the same offset. */
RdmaRead rig_read(const Rig *rig, uint64_t offset, uint32_t length, uint64_t cookie, bool last);

/* True if the words at offset are there. */
bool rig_arrived(const Rig *rig, uint64_t offset, uint64_t length);

/* The next completion, waited for as the header says; false after RIG_BOUND_MS. */
bool rig_wait(RdmaPair *pair, RdmaCompletion *ret);

uint64_t rig_now_ms(void);

/* transport_failures.c */
int rig_run_failures(void); /* how many failed */

#endif
