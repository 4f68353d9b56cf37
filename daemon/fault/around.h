/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How much a fault takes along.  A block's neighbours are asked for behind the page that was wanted and
 * do not delay it, but they delay the next fault: what they may take on the wire is bounded by the
 * time that a fault takes anyway.  Pure: the owner measures.  One resolver's.
 */
#ifndef POSTCOPYD_FAULT_AROUND_H
#define POSTCOPYD_FAULT_AROUND_H

#include <stdatomic.h>
#include <stdint.h>

typedef struct Around {
    uint64_t most;          /* bytes, as configured */
    _Atomic uint64_t bytes; /* of the aligned block, the wanted page included; read by anyone */
    uint64_t came, took_ns; /* neighbours since their cost was last looked at */
    uint64_t least_ns;      /* that a fault takes; slowly forgotten */
    unsigned cheap;         /* costs in a row that were low */
} Around;

void around_init(Around *around, uint64_t most);

/* So many bytes of neighbours came, in so much time since what came before them. */
void around_came(Around *around, uint64_t bytes, uint64_t took_ns);

/* A page that was wanted came after so long. */
void around_waited(Around *around, uint64_t latency_ns);

/*
 * Bytes of a block now.  While the stream fills a link of link_rate (else 0), neighbours only come in the
 * place of its pages, which go near the fault by themselves: no more than the link carries in a moment.
 * The same under a limit (else 0), which holds for neighbours though not for what is wanted.
 */
uint64_t around_bytes(const Around *around, uint64_t link_rate, uint64_t limit);

#endif
