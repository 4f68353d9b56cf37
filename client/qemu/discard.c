/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/discard.h"

#include <errno.h>
#include <sys/stat.h>

#include "client/qemu/clock.h"
#include "client/qemu/listen.h"
#include "client/qemu/marks.h"
#include "client/qemu/pagemap.h"

/*
 * The guest is stopped meanwhile, and the hot set is but a favour: so much of that time and no more,
 * and no look at what is so large that it is memory which never came.
 */
#define LOOK_MAX_NS  (20 * CLOCK_MS)
#define LOOK_MAX_LEN (UINT64_C(256) << 20)

typedef struct Look {
    Listen *listen;
    uint32_t range;
    uint64_t first_page;
} Look;

static void found(void *user, uint64_t first, uint64_t count)
{
    const Look *look = user;
    uint64_t marked =
        marks_hot(&look->listen->plan->table, look->range, look->first_page + first, count);

    __atomic_add_fetch(&look->listen->hot, marked, __ATOMIC_RELAXED);
}

/* A part of a range, from here to there in bytes; whole pages of it are looked at. */
static void look_at(Listen *listen, uint32_t index, uint64_t from, uint64_t to)
{
    const Region *range = &listen->plan->ranges.list[index];
    Look look = {.listen = listen, .range = index};
    uint64_t before = clock_ns(), end = to / range->page_size;

    look.first_page = (from + range->page_size - 1) / range->page_size;
    /* All of it at once: as QEMU does at the beginning, before anything came. */
    if (to - from >= range->length || to - from > LOOK_MAX_LEN || look.first_page >= end ||
        listen->pagemap < 0 || __atomic_load_n(&listen->looked_ns, __ATOMIC_RELAXED) > LOOK_MAX_NS)
        return;
    pagemap_scan(listen->pagemap, (uintptr_t)range->address + look.first_page * range->page_size,
                 range->page_size, end - look.first_page, found, &look);
    __atomic_add_fetch(&listen->looked_ns, clock_ns() - before, __ATOMIC_RELAXED);
}

/* The part of [start, start + length) that lies in a range which begins at `at` of the same space. */
static void look_within(Listen *listen, uint32_t index, uint64_t at, uint64_t start,
                        uint64_t length)
{
    uint64_t range_length = listen->plan->ranges.list[index].length;
    uint64_t end, from, to;

    if (__builtin_add_overflow(start, length, &end) || end <= at || start >= at + range_length)
        return;
    from = start > at ? start - at : 0;
    to = end - at < range_length ? end - at : range_length;
    look_at(listen, index, from, to);
}

bool discard_is_watched(void)
{
    return listen_is_planned();
}

void discard_memory(const void *address, size_t length)
{
    int error = errno;
    Listen *listen = listen_hold();

    if (listen) {
        for (uint32_t i = 0; i < listen->plan->ranges.n; i++)
            look_within(listen, i, (uintptr_t)listen->plan->ranges.list[i].address,
                        (uintptr_t)address, length);
        listen_release();
    }
    errno = error;
}

void discard_file(int fd, off_t offset, off_t length)
{
    int error = errno;
    Listen *listen = offset >= 0 && length > 0 ? listen_hold() : NULL;
    struct stat st;

    if (listen && fstat(fd, &st) == 0)
        for (uint32_t i = 0; i < listen->plan->ranges.n; i++) {
            const MappedFile *file = &listen->plan->files[i];
            if (file->shared && file->inode && file->inode == st.st_ino &&
                file->device == st.st_dev)
                look_within(listen, i, file->offset, (uint64_t)offset, (uint64_t)length);
        }
    if (listen)
        listen_release();
    errno = error;
}
