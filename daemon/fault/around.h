/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How much a fault takes along: all memory has to come anyway, and on a fast link a block costs hardly
 * more than its page.  Where faults take long the block shrinks, and grows again.  On a slow link that
 * the stream fills, neighbours only come in the place of its pages, which go near the fault by
 * themselves: there they are few, and asked for behind the pages that are wanted.
 * Pure: the owner measures.  One resolver's.
 */
#ifndef POSTCOPYD_FAULT_AROUND_H
#define POSTCOPYD_FAULT_AROUND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct Around {
    uint64_t most;          /* bytes, as configured */
    _Atomic uint64_t bytes; /* of the aligned block, the wanted page included; read by anyone */
} Around;

void around_init(Around *around, uint64_t most);

/* A page that was wanted came after so long. */
void around_waited(Around *around, uint64_t latency_ns);

/*
 * Bytes of a block now.  link_rate: of the link that the stream fills, else 0; limit: of the VM, which
 * holds for neighbours though not for what is wanted, else 0.  *ret_apart: the wanted page is asked for
 * by itself, before its neighbours.
 */
uint64_t around_bytes(const Around *around, uint64_t link_rate, uint64_t limit, bool *ret_apart);

#endif
