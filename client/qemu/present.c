/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/present.h"

#include "client/qemu/log.h"
#include "client/qemu/marks.h"
#include "client/qemu/pagemap.h"

enum { STEP = 16384 }; /* pages */

typedef struct Step {
    Present *present;
    const Listen *listen;
} Step;

static void found(void *user, uint64_t first, uint64_t count)
{
    Step *step = user;
    Present *present = step->present;

    marks_found(&step->listen->plan->table, present->range, present->page + first, count);
    present->found += count;
}

bool present_step(Present *present, Listen *listen)
{
    Step step = {.present = present, .listen = listen};
    const Region *range = &listen->plan->ranges.list[present->range];
    uint64_t n_pages = range->length / range->page_size;
    uint64_t count = n_pages - present->page < STEP ? n_pages - present->page : STEP;
    int error =
        pagemap_scan(listen->pagemap, (uintptr_t)range->address + present->page * range->page_size,
                     range->page_size, count, found, &step);

    if (error) {
        /* Then they are fetched a second time, and found to be there. */
        log_line("/proc/self/pagemap: errno %d", -error);
        return true;
    }
    present->page += count;
    if (present->page == n_pages) {
        present->page = 0;
        present->range++;
    }
    return present->range == listen->plan->ranges.n;
}
