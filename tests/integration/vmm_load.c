/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/integration/vmm_load.h"

#include <inttypes.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { REWRITTEN_OF = 4, BAD_LINES = 20 };

typedef struct LoadThread {
    VmmLoad *load;
    pthread_t thread;
    unsigned index;
    uint32_t tid; /* atomic; 0 until it runs */
    uint64_t n_holes;
    VmmCounts counts;
} LoadThread;

struct VmmLoad {
    const VmmMemory *memory;
    unsigned n_threads;
    bool rewrite;
    unsigned pause_us;
    void (*print)(const char *format, ...);
    uint32_t *generations; /* by place; only the owner's thread uses one */
    int stop;              /* atomic */
    int bad_lines;         /* atomic */
    pthread_barrier_t barrier;
    bool last_pass; /* decided by one thread between two barriers */
    uint64_t passes;
    uint64_t bad; /* atomic */
    LoadThread threads[VMM_THREADS];
};

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Which thread may write the page at this place, or -1: none. */
static int owner_of(const VmmLoad *load, uint64_t place)
{
    uint64_t hash = vmm_mix(place ^ UINT64_C(0x5851f42d4c957f2d));

    if (!load->rewrite || hash % REWRITTEN_OF)
        return -1;
    return (int)(hash / REWRITTEN_OF % load->n_threads);
}

/* The first access to a page is where its fault waits. */
static uint64_t touch(LoadThread *self, const uint64_t *words)
{
    uint64_t before = now_us();
    uint64_t word = __atomic_load_n(words, __ATOMIC_RELAXED);
    uint64_t stall = now_us() - before;

    if (stall > self->counts.max_stall_us)
        self->counts.max_stall_us = stall;
    return word;
}

static void report(VmmLoad *load, uint64_t page, unsigned word, uint64_t expected, uint64_t seen)
{
    __atomic_fetch_add(&load->bad, 1, __ATOMIC_RELAXED);
    if (__atomic_fetch_add(&load->bad_lines, 1, __ATOMIC_RELAXED) < BAD_LINES)
        load->print("BAD page=%" PRIu64 " word=%u expected=%016" PRIx64 " seen=%016" PRIx64 "\n",
                    page, word, expected, seen);
}

static void verify_content(LoadThread *self, uint64_t page, uint32_t generation)
{
    const VmmMemory *memory = self->load->memory;
    const uint64_t *words = vmm_memory_words(memory, page);
    uint64_t key = vmm_key(memory, page, generation);

    touch(self, words);
    for (unsigned i = 0; i < VMM_WORDS; i++) {
        uint64_t seen = __atomic_load_n(&words[i], __ATOMIC_RELAXED);
        if (seen == vmm_word(key, i))
            continue;
        self->counts.bad++;
        report(self->load, page, i, vmm_word(key, i), seen);
    }
    self->counts.words += VMM_WORDS;
    self->counts.pages++;
}

static void verify_hole(LoadThread *self, uint64_t page)
{
    const uint64_t *words = vmm_memory_words(self->load->memory, page);

    touch(self, words);
    for (unsigned i = 0; i < VMM_WORDS; i++) {
        uint64_t seen = __atomic_load_n(&words[i], __ATOMIC_RELAXED);
        if (!seen)
            continue;
        self->counts.bad++;
        report(self->load, page, i, 0, seen);
    }
    self->counts.zero_words += VMM_WORDS;
    self->counts.pages++;
}

static void visit_content(LoadThread *self, uint64_t place)
{
    VmmLoad *load = self->load;
    uint64_t page = vmm_memory_page(load->memory, place);
    int owner = owner_of(load, place);

    if (page >= load->memory->kept_pages)
        return;
    if (owner < 0) {
        verify_content(self, page, 0);
    } else if (owner != (int)self->index) {
        touch(self, vmm_memory_words(load->memory, page));
    } else {
        /* Half of them are written before they were ever read: a write fault on a missing page. */
        uint32_t *generation = &load->generations[place];
        if (*generation || place % 2)
            verify_content(self, page, *generation);
        vmm_memory_write(load->memory, page, ++*generation);
        verify_content(self, page, *generation);
    }
}

/* Holes are shared out among the threads; of very many, a sample, another one each pass. */
static void visit_hole(LoadThread *self, uint64_t number)
{
    const VmmShape *shape = &self->load->memory->shape;
    uint64_t holes = shape->n_pages - shape->n_filled;
    uint64_t own = holes / self->load->n_threads;
    uint64_t index =
        self->n_holes == own ? number : vmm_mix(number + self->load->passes * self->n_holes) % own;

    uint64_t page = vmm_memory_page(self->load->memory,
                                    shape->n_filled + index * self->load->n_threads + self->index);
    if (page < self->load->memory->kept_pages)
        verify_hole(self, page);
}

static void do_pass(LoadThread *self)
{
    uint64_t filled = self->load->memory->shape.n_filled;
    uint64_t n = filled + self->n_holes;
    uint64_t seed = vmm_mix(self->index + 1) ^ self->load->passes;
    uint64_t factor = vmm_permutation_factor(n, seed);

    for (uint64_t i = 0; i < n && !__atomic_load_n(&self->load->stop, __ATOMIC_RELAXED); i++) {
        uint64_t visit = vmm_permute(i, n, factor, vmm_mix(seed) % n);
        if (visit < filled)
            visit_content(self, visit);
        else
            visit_hole(self, visit - filled);
        if (self->load->pause_us)
            usleep(self->load->pause_us);
    }
}

/* By one thread while the others wait. */
static void end_pass(VmmLoad *load)
{
    VmmCounts sum = {0};

    for (unsigned i = 0; i < load->n_threads; i++) {
        VmmCounts *counts = &load->threads[i].counts;
        sum.words += counts->words;
        sum.bad += counts->bad;
        sum.pages += counts->pages;
        sum.zero_words += counts->zero_words;
        if (counts->max_stall_us > sum.max_stall_us)
            sum.max_stall_us = counts->max_stall_us;
        *counts = (VmmCounts){0};
    }
    load->last_pass = __atomic_load_n(&load->stop, __ATOMIC_RELAXED);
    if (load->last_pass)
        return;
    load->passes++;
    load->print("VERIFIED words=%" PRIu64 " bad=%" PRIu64 " pages=%" PRIu64 " zero_words=%" PRIu64
                " passes=%" PRIu64 " max_stall_us=%" PRIu64 "\n",
                sum.words, sum.bad, sum.pages, sum.zero_words, load->passes, sum.max_stall_us);
}

static void *run(void *argument)
{
    LoadThread *self = argument;
    VmmLoad *load = self->load;

    __atomic_store_n(&self->tid, (uint32_t)gettid(), __ATOMIC_RELEASE);
    do {
        do_pass(self);
        pthread_barrier_wait(&load->barrier);
        if (self->index == 0)
            end_pass(load);
        pthread_barrier_wait(&load->barrier);
    } while (!load->last_pass);
    return NULL;
}

VmmLoad *vmm_load_start(const VmmMemory *memory, unsigned n_threads, uint64_t hole_samples,
                        bool rewrite, unsigned pause_us, void (*print)(const char *format, ...))
{
    uint64_t holes = (memory->shape.n_pages - memory->shape.n_filled) / n_threads;
    VmmLoad *load = calloc(1, sizeof *load);
    uint32_t *generations = calloc(memory->shape.n_filled, sizeof *generations);

    if (!load || !generations)
        abort();
    load->memory = memory;
    load->n_threads = n_threads;
    load->rewrite = rewrite;
    load->pause_us = pause_us;
    load->print = print;
    load->generations = generations;
    pthread_barrier_init(&load->barrier, NULL, n_threads);
    for (unsigned i = 0; i < n_threads; i++) {
        LoadThread *thread = &load->threads[i];
        thread->load = load;
        thread->index = i;
        thread->n_holes = hole_samples && hole_samples < holes ? hole_samples : holes;
        if (pthread_create(&thread->thread, NULL, run, thread))
            abort();
    }
    return load;
}

void vmm_load_tids(VmmLoad *load, uint32_t *ret_tids)
{
    for (unsigned i = 0; i < load->n_threads; i++)
        while (!(ret_tids[i] = __atomic_load_n(&load->threads[i].tid, __ATOMIC_ACQUIRE)))
            usleep(100);
}

uint64_t vmm_load_bad(const VmmLoad *load)
{
    return __atomic_load_n(&load->bad, __ATOMIC_RELAXED);
}

uint64_t vmm_load_stop(VmmLoad *load)
{
    uint64_t bad;

    __atomic_store_n(&load->stop, 1, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < load->n_threads; i++)
        pthread_join(load->threads[i].thread, NULL);
    bad = vmm_load_bad(load);
    pthread_barrier_destroy(&load->barrier);
    free(load->generations);
    free(load);
    return bad;
}
