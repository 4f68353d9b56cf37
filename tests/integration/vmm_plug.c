/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/integration/vmm_plug.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { GENERATION = 5, LOOKS = 32, THREADS = 256 };

struct VmmPlug {
    const VmmMemory *memory;
    postcopy *pc;
    void (*print)(const char *format, ...);
    bool is_in, was_out;
    uint64_t first, n_pages; /* of the region */
    uint8_t *has_content, *written;
    uint64_t random;
    _Atomic uint64_t bad;
    _Atomic bool stop;
    uint64_t changes;
    int error;
};

typedef struct Toucher {
    VmmPlug *plug;
    unsigned index, n;
    uint64_t pages;
    pthread_t thread;
} Toucher;

static void look(VmmPlug *plug, uint64_t page, uint64_t key)
{
    const uint64_t *words = vmm_memory_words(plug->memory, page);

    for (unsigned i = 0; i < VMM_WORDS; i++) {
        uint64_t seen = __atomic_load_n(&words[i], __ATOMIC_RELAXED);
        if (seen == (key ? vmm_word(key, i) : 0))
            continue;
        if (atomic_fetch_add(&plug->bad, 1) < 10)
            plug->print("BAD page=%" PRIu64 " word=%u seen=%016" PRIx64 "\n", page, i, seen);
    }
}

static void look_at_plugged(VmmPlug *plug, uint64_t page)
{
    uint64_t key = 0;

    if (plug->written[page])
        key = vmm_key(plug->memory, plug->first + page, GENERATION);
    else if (!plug->was_out && plug->has_content[page])
        key = vmm_key(plug->memory, plug->first + page, 0);
    look(plug, plug->first + page, key);
}

static void write_plugged(VmmPlug *plug, uint64_t page)
{
    vmm_memory_write(plug->memory, plug->first + page, GENERATION);
    plug->written[page] = 1;
}

VmmPlug *vmm_plug_new(const VmmMemory *memory, postcopy *pc, void (*print)(const char *format, ...))
{
    const VmmShape *shape = &memory->shape;
    VmmPlug *plug = calloc(1, sizeof *plug);

    if (!plug)
        abort();
    plug->memory = memory;
    plug->pc = pc;
    plug->print = print;
    plug->is_in = !shape->absent;
    plug->n_pages = memory->region_pages;
    plug->first = memory->region_pages * (shape->n_regions - 1);
    plug->random = shape->seed;
    plug->has_content = calloc(plug->n_pages, 1);
    plug->written = calloc(plug->n_pages, 1);
    if (!plug->has_content || !plug->written)
        abort();
    for (uint64_t place = 0; place < shape->n_filled; place++) {
        uint64_t page = vmm_memory_page(memory, place);
        if (page >= plug->first)
            plug->has_content[page - plug->first] = 1;
    }
    return plug;
}

void vmm_plug_free(VmmPlug *plug)
{
    if (!plug)
        return;
    free(plug->has_content);
    free(plug->written);
    free(plug);
}

int vmm_plug_in(VmmPlug *plug)
{
    int error =
        postcopy_add_region(plug->pc, &plug->memory->regions[plug->memory->shape.n_regions - 1]);

    plug->is_in = plug->is_in || !error;
    return error;
}

int vmm_plug_out(VmmPlug *plug)
{
    int error = postcopy_remove_region(
        plug->pc, plug->memory->regions[plug->memory->shape.n_regions - 1].address);

    if (error)
        return error;
    plug->is_in = false;
    plug->was_out = true;
    memset(plug->written, 0, plug->n_pages);
    return 0;
}

uint64_t vmm_plug_check(VmmPlug *plug)
{
    for (uint64_t page = 0; page < plug->n_pages; page++) {
        if (page % 7 == 0)
            write_plugged(plug, page);
        look_at_plugged(plug, page);
    }
    plug->print("CHECKED pages=%" PRIu64 " bad=%" PRIu64 "\n", plug->n_pages,
                atomic_load(&plug->bad));
    return atomic_load(&plug->bad);
}

static void use(VmmPlug *plug)
{
    for (unsigned i = 0; i < LOOKS; i++) {
        uint64_t page = (plug->random = vmm_mix(plug->random + 1)) % plug->n_pages;
        if (plug->random >> 32 & 1)
            write_plugged(plug, page);
        look_at_plugged(plug, page);
    }
}

static void *churn(void *argument)
{
    VmmPlug *plug = argument;

    while (!atomic_load(&plug->stop) && !plug->error) {
        plug->error = plug->is_in ? vmm_plug_out(plug) : vmm_plug_in(plug);
        if (plug->error) {
            plug->print("CHURN failed after %" PRIu64 " changes: %s\n", plug->changes,
                        postcopy_error(plug->pc));
            break;
        }
        plug->changes++;
        if (plug->is_in)
            use(plug);
    }
    return NULL;
}

static void *touch(void *argument)
{
    Toucher *toucher = argument;
    const VmmMemory *memory = toucher->plug->memory;

    for (uint64_t place = toucher->index; place < memory->shape.n_filled; place += toucher->n) {
        uint64_t page = vmm_memory_page(memory, place);
        if (page >= memory->kept_pages)
            continue;
        look(toucher->plug, page, vmm_key(memory, page, 0));
        toucher->pages++;
    }
    return NULL;
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t touch_all(VmmPlug *plug, unsigned n)
{
    Toucher touchers[THREADS];
    uint64_t pages = 0;

    for (unsigned i = 0; i < n; i++) {
        touchers[i] = (Toucher){.plug = plug, .index = i, .n = n};
        if (pthread_create(&touchers[i].thread, NULL, touch, &touchers[i]))
            abort();
    }
    for (unsigned i = 0; i < n; i++) {
        pthread_join(touchers[i].thread, NULL);
        pages += touchers[i].pages;
    }
    return pages;
}

uint64_t vmm_plug_run(VmmPlug *plug, unsigned n_threads, bool with_churn)
{
    uint64_t begin, took, pages;
    pthread_t thread;

    atomic_store(&plug->stop, false);
    plug->changes = 0;
    plug->error = 0;
    begin = now_us();
    if (with_churn && pthread_create(&thread, NULL, churn, plug))
        abort();
    pages = touch_all(plug, n_threads);
    took = now_us() - begin;
    atomic_store(&plug->stop, true);
    if (with_churn)
        pthread_join(thread, NULL);
    plug->print("FAULTED pages=%" PRIu64 " us=%" PRIu64 " per_second=%" PRIu64 " changes=%" PRIu64
                " bad=%" PRIu64 "\n",
                pages, took, pages * 1000000 / (took ? took : 1), plug->changes,
                atomic_load(&plug->bad));
    return atomic_load(&plug->bad) + (plug->error != 0);
}
