/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Faults on their way from the thread that read them to the thread that resolves them.
 *
 * A bounded ring, several producers, one consumer.  Nobody takes a lock; the consumer harvests without
 * a system call while there is something, and a producer makes one only for a consumer that sleeps:
 * push says when a wake is owed, and to whom the queue belongs knows how to wake.  All memory is
 * allocated by init.
 *
 * A position is a number that only grows.  It names the cell position % capacity, and the cell's turn
 * says whose it is:
 *
 *   turn == position                free: whoever moves tail past it writes the record
 *   turn == position + 1            holds the record of this position, for the consumer
 *   turn == position + capacity     free again, for the next lap
 *
 *   claim    tail is moved by compare-and-swap, relaxed: the cell is protected by its turn, not by tail
 *   publish  turn is stored after the record was written; acquired by the consumer before it reads it
 *   free     turn is stored (release) after the record was copied; acquired by the next lap's producer
 *            before it overwrites it
 *
 * Sleeping is between two words, a cell's turn and sleeping.  The consumer announces that it will sleep
 * and looks at the turn again; a producer publishes the turn and looks at sleeping.  All four are
 * sequentially consistent, so at least one of them sees the other:
 *
 *   consumer                                producer
 *     sleeping = true                         turn = position + 1
 *     turn says there is a record?            sleeping?
 *       yes: sleeping = false, go on            yes: exchange it for false; who got true out of it,
 *       no:  sleep                                   and nobody else, owes a wake
 *
 * Invariants, checked by tests/model/fault_queue.pml and tests/unit/core_fault_queue*.c:
 *   - what was pushed is harvested once, and what one producer pushed in its order;
 *   - the consumer does not sleep while a published record is at the head, unless a wake is on its way;
 *   - for each announcement at most one wake is owed.
 * A wake may come although the consumer woke by itself, or looked again and stayed awake: it has to be
 * of a kind that is remembered if it comes early, and harmless if it comes in vain.
 */
#ifndef POSTCOPYD_CORE_FAULT_QUEUE_H
#define POSTCOPYD_CORE_FAULT_QUEUE_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { FAULT_QUEUE_LINE = 64, FAULT_QUEUE_CAPACITY_MAX = 1 << 20 };

typedef struct FaultRecord {
    uint64_t address;  /* of the client */
    uint64_t since_ns; /* when it was read */
    uint32_t shard;    /* index */
    uint32_t vcpu;     /* as import_vcpu() says */
    bool minor;
} FaultRecord;

/* A line of its own: producers next to each other do not disturb each other. */
typedef struct FaultCell {
    alignas(FAULT_QUEUE_LINE) _Atomic uint64_t turn;
    FaultRecord record;
} FaultCell;

typedef struct FaultQueue {
    FaultCell *cells;
    uint64_t mask;
    alignas(FAULT_QUEUE_LINE) _Atomic uint64_t tail; /* the next position to claim; producers */
    alignas(FAULT_QUEUE_LINE) _Atomic bool sleeping; /* or about to: written once a sleep */
    alignas(FAULT_QUEUE_LINE) uint64_t head;         /* the next position to harvest; consumer */
} FaultQueue;

typedef enum FaultPush {
    FAULT_PUSHED,      /* the consumer is awake and will find it */
    FAULT_PUSHED_WAKE, /* pushed, and the caller has to wake the consumer */
    FAULT_QUEUE_FULL,  /* not pushed: the caller resolves it */
} FaultPush;

/* capacity: a power of two, 2 to FAULT_QUEUE_CAPACITY_MAX.  0 or negative errno. */
int fault_queue_init(FaultQueue *queue, uint32_t capacity);

/* Once nobody uses it any more.  A queue that is all zero is allowed. */
void fault_queue_deinit(FaultQueue *queue);

/* Any thread. */
FaultPush fault_queue_push(FaultQueue *queue, const FaultRecord *record);

/* Up to most records, oldest first; how many.  The consumer's thread. */
unsigned fault_queue_harvest(FaultQueue *queue, FaultRecord *ret_records, unsigned most);

/*
 * Announces that the consumer is going to sleep.  False: something came meanwhile, it stays awake and
 * harvests.  The consumer's thread, with no announcement standing.
 */
bool fault_queue_sleep(FaultQueue *queue);

/* After a sleep, whatever ended it: takes the announcement back.  The consumer's thread. */
void fault_queue_awake(FaultQueue *queue);

#endif
