/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/lib/shards.h"
#include "client/lib/uffd.h"

static int take_ranges(Plan *plan, const ClientMessage *message, Reason *ret_reason)
{
    uint64_t host_page = (uint64_t)sysconf(_SC_PAGESIZE);

    if (message->plan.n_ranges == 0)
        return reason_set(ret_reason, -EINVAL, "it names no memory");
    for (uint32_t i = 0; i < message->plan.n_ranges; i++) {
        const ClientRange *range = &message->plan.ranges[i];
        Region region = {
            .address = (uint8_t *)(uintptr_t)range->address,
            .length = range->length,
            .page_size = range->page_size,
            .fd = -1,
        };
        int error;

        if (range->page_size % host_page)
            return reason_set(ret_reason, -EINVAL, "pages of %" PRIu64 " bytes are not this host's",
                              range->page_size);
        if (regions_overlap(&plan->ranges, &region))
            return reason_set(ret_reason, -EINVAL, "it names the memory at 0x%" PRIx64 " twice",
                              range->address);
        error = mapping_find(range->address, range->length, &plan->files[i], ret_reason);
        if (error)
            return error;
        plan->ranges.list[plan->ranges.n++] = region;
    }
    return 0;
}

static int compare_segments(const void *a, const void *b)
{
    const Segment *x = a, *y = b;

    return x->start < y->start ? -1 : x->start > y->start;
}

/* Opened before QEMU asks for one, so that what can fail has failed by then. */
static int take_shards(Plan *plan, const ClientMessage *message, int device_fd, Reason *ret_reason)
{
    int error =
        shards_check(message->plan.shards, message->plan.n_shards, &plan->ranges, ret_reason);

    for (uint32_t i = 0; !error && i < message->plan.n_shards; i++) {
        const ClientShard *shard = &message->plan.shards[i];
        Segment *segment = &plan->segments[i];

        if (shard->flags)
            return reason_set(ret_reason, -EINVAL, "QEMU's memory is registered MISSING only");
        segment->uffd = uffd_open(device_fd, 0, ret_reason);
        if (segment->uffd < 0)
            return segment->uffd;
        plan->uffds[plan->n_segments++] = segment->uffd;
        segment->range = shard->region;
        segment->start = (uintptr_t)plan->ranges.list[shard->region].address + shard->start;
        segment->end = segment->start + shard->length;
    }
    qsort(plan->segments, plan->n_segments, sizeof plan->segments[0], compare_segments);
    return error;
}

/*
 * QEMU's threads write to the table, and a page of it that could not be had then would kill them.  The daemon
 * has seen to that; of one that did not we hear here, before we look at anything in it.
 */
static int allocate_table(int fd, uint64_t size, Reason *ret_reason)
{
    struct stat st;
    int result;

    if (fstat(fd, &st) || (uint64_t)st.st_size != size)
        return 0; /* table_init() has more to say of that */
    do
        result = fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, st.st_size);
    while (result && errno == EINTR);
    if (result)
        return reason_set(ret_reason, -errno, "the page table cannot be allocated: %s",
                          strerror(errno));
    return 0;
}

Plan *plan_new(const ClientMessage *message, int table_fd, int device_fd, Reason *ret_reason)
{
    Plan *plan = calloc(1, sizeof *plan);
    int error;

    if (!plan) {
        reason_set(ret_reason, -ENOMEM, "out of memory");
        close(table_fd);
        return NULL;
    }
    plan->table.fd = -1;
    error = take_ranges(plan, message, ret_reason);
    if (!error)
        error = allocate_table(table_fd, message->plan.table_size, ret_reason);
    if (error)
        close(table_fd);
    else
        error =
            table_init(&plan->table, table_fd, message->plan.table_size, &plan->ranges, ret_reason);
    if (!error)
        error = take_shards(plan, message, device_fd, ret_reason);
    if (error) {
        plan_free(plan);
        return NULL;
    }
    return plan;
}

void plan_free(Plan *plan)
{
    if (!plan)
        return;
    for (uint32_t i = 0; i < plan->n_segments; i++)
        close(plan->uffds[i]);
    table_deinit(&plan->table);
    free(plan);
}

Segment *plan_find(Plan *plan, uint64_t address, uint64_t length, uint64_t *ret_length)
{
    uint32_t low = 0, high = plan->n_segments;
    uint64_t end = address + length;

    /* The first segment that ends behind the address. */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (plan->segments[middle].end > address)
            high = middle;
        else
            low = middle + 1;
    }
    *ret_length = length;
    if (low == plan->n_segments || plan->segments[low].start >= end)
        return NULL;
    if (plan->segments[low].start > address) {
        *ret_length = plan->segments[low].start - address;
        return NULL;
    }
    if (plan->segments[low].end < end)
        *ret_length = plan->segments[low].end - address;
    return &plan->segments[low];
}
