/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/core/fault_queue.h"

#include <errno.h>
#include <stdlib.h>

int fault_queue_init(FaultQueue *queue, uint32_t capacity)
{
    *queue = (FaultQueue){0};
    if (capacity < 2 || capacity > FAULT_QUEUE_CAPACITY_MAX || (capacity & (capacity - 1)) != 0)
        return -EINVAL;
    queue->cells = aligned_alloc(FAULT_QUEUE_LINE, capacity * sizeof *queue->cells);
    if (!queue->cells)
        return -ENOMEM;
    for (uint32_t i = 0; i < capacity; i++)
        atomic_init(&queue->cells[i].turn, i);
    queue->mask = capacity - 1;
    return 0;
}

void fault_queue_deinit(FaultQueue *queue)
{
    free(queue->cells);
    *queue = (FaultQueue){0};
}

/* A free cell whose position is now the caller's; NULL: the ring is full. */
static FaultCell *claim(FaultQueue *queue, uint64_t *ret_position)
{
    uint64_t position = atomic_load_explicit(&queue->tail, memory_order_relaxed);

    for (;;) {
        FaultCell *cell = &queue->cells[position & queue->mask];
        uint64_t turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
        int64_t ahead = (int64_t)(turn - position);

        if (ahead < 0)
            return NULL; /* still holds the record of the lap before */
        if (ahead > 0)
            position = atomic_load_explicit(&queue->tail, memory_order_relaxed);
        else if (atomic_compare_exchange_weak_explicit(&queue->tail, &position, position + 1,
                                                       memory_order_relaxed,
                                                       memory_order_relaxed)) {
            *ret_position = position;
            return cell;
        }
    }
}

FaultPush fault_queue_push(FaultQueue *queue, const FaultRecord *record)
{
    uint64_t position;
    FaultCell *cell = claim(queue, &position);

    if (!cell)
        return FAULT_QUEUE_FULL;
    cell->record = *record;
    atomic_store_explicit(&cell->turn, position + 1, memory_order_seq_cst);
    /* Looked at first: an exchange would take the line from the others at every push. */
    if (atomic_load_explicit(&queue->sleeping, memory_order_seq_cst) &&
        atomic_exchange_explicit(&queue->sleeping, false, memory_order_seq_cst))
        return FAULT_PUSHED_WAKE;
    return FAULT_PUSHED;
}

unsigned fault_queue_harvest(FaultQueue *queue, FaultRecord *ret_records, unsigned most)
{
    unsigned n;

    for (n = 0; n < most; n++, queue->head++) {
        FaultCell *cell = &queue->cells[queue->head & queue->mask];

        if (atomic_load_explicit(&cell->turn, memory_order_acquire) != queue->head + 1)
            break;
        ret_records[n] = cell->record;
        atomic_store_explicit(&cell->turn, queue->head + queue->mask + 1, memory_order_release);
    }
    return n;
}

bool fault_queue_sleep(FaultQueue *queue)
{
    const FaultCell *cell = &queue->cells[queue->head & queue->mask];

    atomic_store_explicit(&queue->sleeping, true, memory_order_seq_cst);
    if (atomic_load_explicit(&cell->turn, memory_order_seq_cst) != queue->head + 1)
        return true;
    fault_queue_awake(queue);
    return false;
}

void fault_queue_awake(FaultQueue *queue)
{
    if (atomic_load_explicit(&queue->sleeping, memory_order_relaxed))
        atomic_store_explicit(&queue->sleeping, false, memory_order_relaxed);
}
