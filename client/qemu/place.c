/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/place.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/ioctl.h>

#include "client/lib/uffd.h"
#include "client/qemu/marks.h"

/* A mapping that changes under the kernel's feet makes it ask us to try again. */
enum { TRIES = 1000 };

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

/*
 * The kernel would copy the page before it finds that there is one.  Who waits for it is woken all the
 * same: it may have been passed on to QEMU before the daemon placed the page, and be in nobody's books.
 */
static bool is_there(const Plan *plan, const Segment *segment, uint64_t address)
{
    const Region *range = &plan->ranges.list[segment->range];

    return marks_is_present(&plan->table, segment->range,
                            (address - (uintptr_t)range->address) / range->page_size);
}

int place(const Plan *plan, const Segment *segment, const Placing *placing, uint64_t length,
          uint64_t *done, PlaceCounts *counts)
{
    uint64_t page_size = plan->ranges.list[segment->range].page_size;
    uint64_t end = *done + length;
    unsigned tries = 0;

    while (*done < end) {
        bool whole = end - *done >= page_size;
        int64_t got = whole && is_there(plan, segment, placing->to + *done)
                          ? -EEXIST
                          : place_once(segment->uffd, placing, *done, end - *done);

        if (got == -EEXIST && whole) {
            uffd_wake_range(segment->uffd, (void *)(uintptr_t)(placing->to + *done), page_size);
            __atomic_add_fetch(&counts->there, 1, __ATOMIC_RELAXED);
            got = (int64_t)page_size;
        } else if (got == -EAGAIN && ++tries < TRIES) {
            sched_yield();
            continue;
        } else if (got < 0) {
            return (int)got;
        } else {
            __atomic_add_fetch(&counts->placed, (uint64_t)got / page_size, __ATOMIC_RELAXED);
        }
        tries = 0;
        mark(plan, segment, placing->to + *done, (uint64_t)got);
        *done += (uint64_t)got;
    }
    return 0;
}
