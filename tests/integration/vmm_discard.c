/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/integration/vmm_discard.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { RUN_MAX = 64 };

typedef enum Fate { FATE_KEPT = 0, FATE_ZERO, FATE_WRITTEN } Fate;

struct VmmDiscard {
    const VmmMemory *memory;
    const struct postcopy_region *region;
    uint64_t first, n_pages; /* of the region */
    uint8_t *fates;
    uint8_t *has_content;
    uint64_t state; /* of the random numbers */
    uint64_t bad, pages;
    void (*print)(const char *format, ...);
};

static uint64_t next(VmmDiscard *discard)
{
    return discard->state = vmm_mix(discard->state + 1);
}

static uint64_t key_of(const VmmDiscard *discard, uint64_t page)
{
    switch ((Fate)discard->fates[page]) {
    case FATE_KEPT:
        return discard->has_content[page] ? vmm_key(discard->memory, discard->first + page, 0) : 0;
    case FATE_WRITTEN:
        return vmm_key(discard->memory, discard->first + page, 77);
    default:
        return 0;
    }
}

static void check(VmmDiscard *discard, uint64_t page)
{
    const uint64_t *words = vmm_memory_words(discard->memory, discard->first + page);
    uint64_t key = key_of(discard, page);

    for (unsigned i = 0; i < VMM_WORDS; i++) {
        uint64_t seen = __atomic_load_n(&words[i], __ATOMIC_RELAXED);
        if (seen == (key ? vmm_word(key, i) : 0))
            continue;
        if (discard->bad++ < 10)
            discard->print("BAD page=%" PRIu64 " word=%u fate=%d seen=%016" PRIx64 "\n",
                           discard->first + page, i, discard->fates[page], seen);
    }
}

/* As QEMU does it: a hole in the file first, of which nobody hears, then madvise. */
static void give_back(VmmDiscard *discard, uint64_t page, uint64_t count)
{
    bool shared = discard->region->backing == POSTCOPY_SHARED;
    bool remove = shared && next(discard) % 3 == 0;
    char *address = (char *)discard->region->address + page * VMM_PAGE;

    if (shared && !remove &&
        fallocate(discard->region->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)(discard->region->fd_offset + page * VMM_PAGE), (off_t)(count * VMM_PAGE)))
        abort();
    while (madvise(address, count * VMM_PAGE, remove ? MADV_REMOVE : MADV_DONTNEED))
        if (errno != EAGAIN && errno != EINTR)
            abort();
    memset(discard->fates + page, FATE_ZERO, count);
    discard->pages += count;
}

static uint64_t pick(VmmDiscard *discard, uint64_t *ret_count)
{
    *ret_count = next(discard) % RUN_MAX + 1;
    return next(discard) % (discard->n_pages - *ret_count + 1);
}

static void one(VmmDiscard *discard)
{
    uint64_t count;
    uint64_t page = pick(discard, &count);

    if (next(discard) % 2) /* there already, or on its way for a neighbour */
        check(discard, page + next(discard) % count);
    give_back(discard, page, count);
    if (next(discard) % 2)
        return;
    for (uint64_t i = page; i < page + count; i++) {
        check(discard, i);
        if (next(discard) % 2)
            continue;
        discard->fates[i] = FATE_WRITTEN;
        vmm_memory_write(discard->memory, discard->first + i, 77);
    }
    check(discard, page);
}

VmmDiscard *vmm_discard_new(const VmmMemory *memory, void (*print)(const char *format, ...))
{
    const VmmShape *shape = &memory->shape;
    VmmDiscard *discard = calloc(1, sizeof *discard);

    if (!discard)
        abort();
    discard->memory = memory;
    discard->region = &memory->regions[shape->n_regions - 1];
    discard->first = memory->region_pages * (shape->n_regions - 1);
    discard->n_pages = memory->region_pages;
    discard->state = shape->seed;
    discard->print = print;
    discard->fates = calloc(discard->n_pages, 1);
    discard->has_content = calloc(discard->n_pages, 1);
    if (!discard->fates || !discard->has_content)
        abort();
    for (uint64_t place = 0; place < shape->n_filled; place++) {
        uint64_t page = vmm_memory_page(memory, place);
        if (page >= discard->first)
            discard->has_content[page - discard->first] = 1;
    }
    return discard;
}

uint64_t vmm_discard(VmmDiscard *discard, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        one(discard);
    for (uint64_t page = 0; page < discard->n_pages; page++)
        check(discard, page);
    discard->print("DISCARDED pages=%" PRIu64 " bad=%" PRIu64 "\n", discard->pages, discard->bad);
    return discard->bad;
}

void vmm_discard_blindly(VmmDiscard *discard, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        uint64_t count;
        uint64_t page = pick(discard, &count);

        give_back(discard, page, count);
    }
}
