/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/place.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/ioctl.h>

#include "client/lib/uffd.h"
#include "client/qemu/clock.h"
#include "client/qemu/marks.h"

/* A mapping that changes under the kernel's feet makes it ask us to try again. */
enum { TRIES = 1000 };

/* The daemon is between two moves of its own there, with nothing but the placing between them. */
#define FINISH_NS (50 * CLOCK_MS)

/* How many bytes were placed (not 0), or negative errno. */
static int64_t place_once(int uffd, const Placing *placing, uint64_t done, uint64_t length)
{
    int64_t progress;
    int error;

    if (placing->zero) {
        struct uffdio_zeropage zero = {
            .range = {.start = placing->to + done, .len = length},
            .mode = placing->mode,
        };
        error = ioctl(uffd, UFFDIO_ZEROPAGE, &zero) < 0 ? -errno : 0;
        progress = zero.zeropage;
    } else {
        struct uffdio_copy copy = {
            .dst = placing->to + done,
            .src = placing->from + done,
            .len = length,
            .mode = placing->mode,
        };
        error = ioctl(uffd, UFFDIO_COPY, &copy) < 0 ? -errno : 0;
        progress = copy.copy;
    }
    if (!error)
        return (int64_t)length;
    return progress > 0 && (uint64_t)progress <= length ? progress : error;
}

static void mark(const Plan *plan, const Segment *segment, uint64_t address, uint64_t length)
{
    const Region *range = &plan->ranges.list[segment->range];
    uint64_t page = (address - (uintptr_t)range->address) / range->page_size;

    marks_present(&plan->table, segment->range, page, length / range->page_size);
}

static PageState state_at(const Plan *plan, const Segment *segment, uint64_t address)
{
    const Region *range = &plan->ranges.list[segment->range];

    return marks_state(&plan->table, segment->range,
                       (address - (uintptr_t)range->address) / range->page_size);
}

/*
 * Something is there.  True if the daemon placed it: it says RECEIVED before it does and what became of
 * it right after, so whatever else the table says, it was not the daemon.  One that died in between did
 * place it, in all likelihood; that is waited out once.
 */
static bool is_the_daemons(const Plan *plan, const Segment *segment, uint64_t address,
                           PlaceCounts *counts)
{
    PageState state = state_at(plan, segment, address);
    uint64_t begin = clock_ns();

    while (state == PAGE_RECEIVED && !__atomic_load_n(&counts->abandoned, __ATOMIC_RELAXED)) {
        if (clock_ns() - begin > FINISH_NS)
            __atomic_store_n(&counts->abandoned, true, __ATOMIC_RELAXED);
        sched_yield();
        state = state_at(plan, segment, address);
    }
    return state == PAGE_PRESENT || state == PAGE_RECEIVED;
}

/*
 * How many bytes are there now (not 0), or negative errno.  The kernel would copy a page before it finds
 * that there is one, so the table is asked first.  The daemon wakes who waits for a page as it places it;
 * who was passed on to QEMU may have asked since, and be in nobody's books: woken here once more.
 */
static int64_t put(const Plan *plan, const Segment *segment, const Placing *placing, uint64_t done,
                   uint64_t length, PlaceCounts *counts)
{
    uint64_t page_size = plan->ranges.list[segment->range].page_size;
    uint64_t address = placing->to + done;
    bool whole = length >= page_size;
    int64_t got = whole && state_at(plan, segment, address) == PAGE_PRESENT
                      ? -EEXIST
                      : place_once(segment->uffd, placing, done, length);

    if (got > 0) {
        __atomic_add_fetch(&counts->placed, (uint64_t)got / page_size, __ATOMIC_RELAXED);
        mark(plan, segment, address, (uint64_t)got);
        return got;
    }
    if (got != -EEXIST || !whole || !is_the_daemons(plan, segment, address, counts))
        return got;
    if (__atomic_load_n(&counts->passed_on, __ATOMIC_ACQUIRE))
        uffd_wake_range(segment->uffd, (void *)(uintptr_t)address, page_size);
    __atomic_add_fetch(&counts->there, 1, __ATOMIC_RELAXED);
    return (int64_t)page_size;
}

int place(const Plan *plan, const Segment *segment, const Placing *placing, uint64_t length,
          uint64_t *done, PlaceCounts *counts)
{
    uint64_t end = *done + length;
    unsigned tries = 0;

    while (*done < end) {
        int64_t got = put(plan, segment, placing, *done, end - *done, counts);

        if (got == -EAGAIN && ++tries < TRIES) {
            sched_yield();
            continue;
        }
        if (got < 0)
            return (int)got;
        tries = 0;
        *done += (uint64_t)got;
    }
    return 0;
}
