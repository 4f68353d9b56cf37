/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/route.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include "client/lib/uffd.h"
#include "client/qemu/clock.h"
#include "client/qemu/log.h"

static bool is_registered(const Segment *segment)
{
    return segment && __atomic_load_n(&segment->registered, __ATOMIC_ACQUIRE);
}

/* What of a range lies on one uffd: the segment, or NULL for the native one, and how many bytes. */
static Segment *next_piece(Listen *listen, uint64_t address, uint64_t length, uint64_t *ret_length)
{
    Segment *segment = plan_find(listen->plan, address, length, ret_length);

    if (is_registered(segment))
        return segment;
    /* All that is native in one piece, whether it was planned or not. */
    while (*ret_length < length) {
        uint64_t more;
        if (is_registered(
                plan_find(listen->plan, address + *ret_length, length - *ret_length, &more)))
            break;
        *ret_length += more;
    }
    return NULL;
}

/* True if all of the range is the native uffd's; also if it makes no sense, which that will say. */
static bool is_native(Listen *listen, uint64_t address, uint64_t length)
{
    uint64_t end, piece;

    if (length == 0 || __builtin_add_overflow(address, length, &end))
        return true;
    return !next_piece(listen, address, length, &piece) && piece == length;
}

/* 0 or negative errno; *ioctls keeps what can be done on this piece, too. */
static int register_piece(int uffd, uint64_t start, uint64_t length, uint64_t mode,
                          uint64_t *ioctls)
{
    struct uffdio_register part = {.range = {.start = start, .len = length}, .mode = mode};

    if (ioctl(uffd, UFFDIO_REGISTER, &part) < 0)
        return -errno;
    *ioctls &= part.ioctls;
    return 0;
}

static void wake_assist(const Listen *listen)
{
    eventfd_write(listen->wake, 1);
}

static void unregister_range(Plan *plan, uint32_t range)
{
    for (uint32_t i = 0; i < plan->n_segments; i++) {
        Segment *segment = &plan->segments[i];
        if (segment->range != range || !is_registered(segment))
            continue;
        uffd_unregister(segment->uffd, (void *)(uintptr_t)segment->start,
                        segment->end - segment->start);
        __atomic_store_n(&segment->registered, false, __ATOMIC_RELEASE);
    }
}

/*
 * One planned range on its own uffds.  If that fails it is left to the native one: QEMU registers
 * before anything uses its memory, so nobody is waiting there yet.
 */
static void register_planned(Listen *listen, uint32_t range, uint64_t *ioctls)
{
    Plan *plan = listen->plan;

    for (uint32_t i = 0; i < plan->n_segments; i++) {
        Segment *segment = &plan->segments[i];
        int error;

        if (segment->range != range || is_registered(segment))
            continue;
        error = register_piece(segment->uffd, segment->start, segment->end - segment->start,
                               UFFDIO_REGISTER_MODE_MISSING, ioctls);
        if (error) {
            log_line("cannot register the memory at 0x%llx: errno %d; it stays with QEMU",
                     (unsigned long long)segment->start, -error);
            unregister_range(plan, range);
            return;
        }
        __atomic_store_n(&segment->registered, true, __ATOMIC_RELEASE);
    }
    if (!__atomic_load_n(&listen->registered_at, __ATOMIC_ACQUIRE))
        __atomic_store_n(&listen->registered_at, clock_ns(), __ATOMIC_RELEASE);
}

static bool all_registered(const Plan *plan)
{
    for (uint32_t i = 0; i < plan->n_segments; i++)
        if (!is_registered(&plan->segments[i]))
            return false;
    return true;
}

static void register_all_planned(Listen *listen, const struct uffdio_register *wanted,
                                 uint64_t *ioctls)
{
    Plan *plan = listen->plan;
    uint64_t start = wanted->range.start, end;

    if (wanted->mode != UFFDIO_REGISTER_MODE_MISSING ||
        __atomic_load_n(&listen->lost, __ATOMIC_ACQUIRE) ||
        __builtin_add_overflow(start, wanted->range.len, &end))
        return;
    for (uint32_t i = 0; i < plan->ranges.n; i++) {
        const Region *range = &plan->ranges.list[i];
        uint64_t address = (uintptr_t)range->address;
        if (address >= start && address + range->length <= end)
            register_planned(listen, i, ioctls);
    }
}

static int register_memory(Listen *listen, struct uffdio_register *wanted)
{
    uint64_t start = wanted->range.start, length = wanted->range.len;
    uint64_t ioctls = UINT64_MAX;

    register_all_planned(listen, wanted, &ioctls);
    if (is_native(listen, start, length))
        return ioctl(listen->native, UFFDIO_REGISTER, wanted);
    for (uint64_t done = 0, piece; done < length; done += piece) {
        if (next_piece(listen, start + done, length - done, &piece))
            continue;
        int error = register_piece(listen->native, start + done, piece, wanted->mode, &ioctls);
        if (error) {
            errno = -error;
            return -1;
        }
    }
    wanted->ioctls = ioctls;
    if (all_registered(listen->plan))
        __atomic_store_n(&listen->complete, true, __ATOMIC_RELEASE);
    wake_assist(listen);
    return 0;
}

/* UNREGISTER and WAKE: a request on a range. */
static int range_ioctl(Listen *listen, unsigned long request, struct uffdio_range *range)
{
    uint64_t start = range->start, length = range->len;
    int result = 0, error = 0;

    if (is_native(listen, start, length))
        return ioctl(listen->native, request, range);
    for (uint64_t done = 0, piece; done < length; done += piece) {
        Segment *segment = next_piece(listen, start + done, length - done, &piece);
        struct uffdio_range part = {.start = start + done, .len = piece};

        if (ioctl(segment ? segment->uffd : listen->native, request, &part) < 0) {
            error = errno;
            result = -1;
        }
        if (!segment || request != UFFDIO_UNREGISTER)
            continue;
        /* The kernel wakes before it takes the mapping's lock: who holds that would queue behind. */
        uffd_wake_range(segment->uffd, (void *)(uintptr_t)part.start, part.len);
        if (part.start == segment->start && part.len == segment->end - segment->start)
            __atomic_store_n(&segment->registered, false, __ATOMIC_RELEASE);
    }
    if (request == UFFDIO_UNREGISTER)
        wake_assist(listen);
    errno = error;
    return result;
}

/* The native uffd's part of a COPY or ZEROPAGE: 0 or negative errno. */
static int place_native(Listen *listen, const Placing *placing, uint64_t length, uint64_t *done)
{
    int64_t progress;
    int error;

    if (placing->zero) {
        struct uffdio_zeropage zero = {
            .range = {.start = placing->to + *done, .len = length},
            .mode = placing->mode,
        };
        error = ioctl(listen->native, UFFDIO_ZEROPAGE, &zero) < 0 ? -errno : 0;
        progress = zero.zeropage;
    } else {
        struct uffdio_copy copy = {
            .dst = placing->to + *done,
            .src = placing->from + *done,
            .len = length,
            .mode = placing->mode,
        };
        error = ioctl(listen->native, UFFDIO_COPY, &copy) < 0 ? -errno : 0;
        progress = copy.copy;
    }
    if (progress > 0 && (uint64_t)progress <= length) {
        hold_placed(&listen->hold, placing->to + *done, (uint64_t)progress);
        *done += (uint64_t)progress;
    }
    return error;
}

/* As the kernel's: *result is what was placed, or the negative errno if that is nothing. */
static int place_all(Listen *listen, const Placing *placing, int64_t *result)
{
    uint64_t done = 0, piece;
    int error = 0;

    hold_wait(&listen->hold, listen->plan);
    while (done < placing->length && !error) {
        Segment *segment = next_piece(listen, placing->to + done, placing->length - done, &piece);
        error = segment ? place(listen->plan, segment, placing, piece, &done, &listen->counts)
                        : place_native(listen, placing, piece, &done);
    }
    *result = done ? (int64_t)done : error;
    if (!error)
        return 0;
    errno = done ? EAGAIN : -error;
    return -1;
}

static int copy(Listen *listen, struct uffdio_copy *copy)
{
    const Placing placing = {
        .to = copy->dst, .from = copy->src, .length = copy->len, .mode = copy->mode};
    int64_t progress;
    int result;

    if (is_native(listen, copy->dst, copy->len)) {
        hold_placed(&listen->hold, copy->dst, copy->len); /* or not: QEMU says so then */
        return ioctl(listen->native, UFFDIO_COPY, copy);
    }
    result = place_all(listen, &placing, &progress);
    copy->copy = progress;
    return result;
}

static int zeropage(Listen *listen, struct uffdio_zeropage *zero)
{
    const Placing placing = {
        .zero = true, .to = zero->range.start, .length = zero->range.len, .mode = zero->mode};
    int64_t progress;
    int result;

    if (is_native(listen, zero->range.start, zero->range.len)) {
        hold_placed(&listen->hold, zero->range.start, zero->range.len);
        return ioctl(listen->native, UFFDIO_ZEROPAGE, zero);
    }
    result = place_all(listen, &placing, &progress);
    zero->zeropage = progress;
    return result;
}

/* What else begins with a range: to the uffd that its beginning belongs to. */
static int other_ioctl(Listen *listen, unsigned long request, void *argument)
{
    int uffd = listen->native;

    if (_IOC_NR(request) == _UFFDIO_CONTINUE || _IOC_NR(request) == _UFFDIO_WRITEPROTECT) {
        const struct uffdio_range *range = argument;
        uint64_t piece;
        Segment *segment = plan_find(listen->plan, range->start, 1, &piece);
        if (is_registered(segment))
            uffd = segment->uffd;
    }
    return ioctl(uffd, request, argument);
}

static int api(Listen *listen, struct uffdio_api *wanted)
{
    bool thread_ids = wanted->features & UFFD_FEATURE_THREAD_ID;
    int result = ioctl(listen->native, UFFDIO_API, wanted);

    if (result == 0) {
        __atomic_store_n(&listen->thread_ids, thread_ids, __ATOMIC_RELEASE);
        __atomic_store_n(&listen->initialized, true, __ATOMIC_RELEASE);
        wake_assist(listen);
    }
    return result;
}

int route_ioctl(Listen *listen, unsigned long request, void *argument)
{
    switch (request) {
    case UFFDIO_API:
        return api(listen, argument);
    case UFFDIO_REGISTER:
        return register_memory(listen, argument);
    case UFFDIO_UNREGISTER:
    case UFFDIO_WAKE:
        return range_ioctl(listen, request, argument);
    case UFFDIO_COPY:
        return copy(listen, argument);
    case UFFDIO_ZEROPAGE:
        return zeropage(listen, argument);
    default:
        return other_ioctl(listen, request, argument);
    }
}
