/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/landing.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "daemon/core/clock.h"
#include "daemon/core/log.h"

enum { LANDING_REFUSED_MS = 100, LANDING_PREPARE_MS = 1000 };

#define LANDING_PIN     (UINT64_C(1) << 32) /* besides the lkey: 0 is one, too */
#define LANDING_CLOSED  (UINT64_C(1) << 33) /* alone: pinned still, and found no more */
#define LANDING_PREPARE (UINT64_C(256) << 20)
#define NOT_COUNTED     UINT64_MAX
#define CHUNK_SIZE      (UINT64_C(1) << PAGE_TABLE_CHUNK_SHIFT)

int landing_init(Landing *landing, const PageTable *table, const Mirror *mirror,
                 const RegionSet *regions, const _Atomic bool *present)
{
    *landing = (Landing){
        .table = table,
        .mirror = mirror,
        .regions = regions,
        .present = present,
    };
    pthread_mutex_init(&landing->lock, NULL);
    landing->blocks = calloc(LANDING_BLOCKS, sizeof *landing->blocks);
    if (!landing->blocks)
        return -ENOMEM;
    for (uint32_t i = 0; i < regions->n; i++) {
        uint64_t chunks = ((regions->regions[i].length - 1) >> PAGE_TABLE_CHUNK_SHIFT) + 1;

        if (!mirror->memory[i] || regions->regions[i].removable)
            continue;
        landing->pins[i] = calloc(chunks, sizeof *landing->pins[i]);
        if (!landing->pins[i])
            return -ENOMEM;
        landing->chunks[i] = chunks;
    }
    return 0;
}

void landing_deinit(Landing *landing)
{
    if (!landing->table)
        return;
    landing_end(landing);
    for (uint32_t i = 0; i < LIMIT_REGIONS; i++)
        free(landing->pins[i]);
    free(landing->blocks);
    pthread_mutex_destroy(&landing->lock);
    *landing = (Landing){0};
}

/* --- the parts that need no device --------------------------------------------------------- */

static bool is_free(const Landing *landing, uint32_t region, uint64_t chunk)
{
    return chunk < landing->chunks[region] &&
           page_table_is_allocated(landing->table, region, chunk << PAGE_TABLE_CHUNK_SHIFT) &&
           atomic_load_explicit(&landing->pins[region][chunk], memory_order_relaxed) == 0;
}

uint64_t landing_run(const Landing *landing, uint32_t region, uint64_t chunk, uint64_t *ret_first)
{
    uint64_t block = chunk / LANDING_BLOCK_CHUNKS * LANDING_BLOCK_CHUNKS;
    uint64_t first = chunk, end = chunk;

    if (!landing->pins[region] || !is_free(landing, region, chunk))
        return 0;
    while (first > block && is_free(landing, region, first - 1))
        first--;
    while (end < block + LANDING_BLOCK_CHUNKS && is_free(landing, region, end))
        end++;
    *ret_first = first;
    return end - first;
}

void landing_mark(Landing *landing, uint32_t region, uint64_t chunk, uint64_t count, uint32_t lkey)
{
    for (uint64_t i = chunk; i < chunk + count; i++)
        atomic_store_explicit(&landing->pins[region][i], LANDING_PIN | lkey, memory_order_release);
}

static void set_pins(Landing *landing, uint32_t region, uint64_t chunk, uint64_t count,
                     uint64_t pin)
{
    for (uint64_t i = chunk; i < chunk + count; i++)
        atomic_store_explicit(&landing->pins[region][i], pin, memory_order_relaxed);
}

void landing_close(Landing *landing, uint32_t region, uint64_t chunk, uint64_t count)
{
    set_pins(landing, region, chunk, count, LANDING_CLOSED);
    /* Before whoever unpins looks at the pages: against landing_find(). */
    atomic_thread_fence(memory_order_seq_cst);
}

void landing_unmark(Landing *landing, uint32_t region, uint64_t chunk, uint64_t count)
{
    set_pins(landing, region, chunk, count, 0);
}

uint64_t landing_find(const Landing *landing, uint32_t region, uint64_t offset, uint64_t length,
                      uint32_t *ret_lkey)
{
    uint64_t chunk = offset >> PAGE_TABLE_CHUNK_SHIFT, end;
    uint64_t pin;

    if (!landing->pins[region])
        return 0;
    /* The claim of these pages before, the look at the pins behind: against landing_close(). */
    atomic_thread_fence(memory_order_seq_cst);
    pin = atomic_load_explicit(&landing->pins[region][chunk], memory_order_acquire);
    if (!(pin & LANDING_PIN))
        return 0;
    *ret_lkey = (uint32_t)pin;
    for (end = (chunk + 1) << PAGE_TABLE_CHUNK_SHIFT; end < offset + length; end += CHUNK_SIZE)
        if (atomic_load_explicit(&landing->pins[region][++chunk], memory_order_acquire) != pin)
            return end - offset;
    return length;
}

static uint64_t page_of(const Landing *landing, uint32_t region, uint64_t chunk)
{
    uint64_t page = chunk << PAGE_TABLE_CHUNK_SHIFT >> landing->regions->regions[region].page_shift;

    return page < landing->table->pages[region] ? page : landing->table->pages[region];
}

bool landing_is_over(Landing *landing, LandingBlock *block)
{
    uint64_t end = page_of(landing, block->region, block->chunk + block->count);

    block->checked = page_table_find_unplaced(landing->table, block->region, block->checked, end);
    if (block->checked < end)
        return false;
    if (!block->closed) {
        landing_close(landing, block->region, block->chunk, block->count);
        block->closed = true;
    }
    /* A hole that was passed over may have been claimed before nobody found the block any more. */
    block->checked = page_of(landing, block->region, block->chunk);
    block->checked = page_table_find_unplaced(landing->table, block->region, block->checked, end);
    return block->checked == end;
}

/* --- pinning ------------------------------------------------------------------------------- */

/*
 * As for the mirror: what a client says it allocated and did not would be allocated here.  The stream's
 * thread: a region that it saw present keeps its file until it says that it is settled.
 */
static void count_allocated(Landing *landing, uint32_t region)
{
    struct stat status;

    if (landing->left[region] == NOT_COUNTED)
        landing->left[region] = fstat(landing->regions->regions[region].fd, &status) == 0
                                    ? (uint64_t)status.st_blocks * 512
                                    : 0;
}

void landing_begin(Landing *landing, RdmaDevice *device)
{
    if (!landing->table)
        return;
    pthread_mutex_lock(&landing->lock);
    landing->device = rdma_device_ref(device);
    landing->refused_ns = 0;
    landing->next_region = 0;
    landing->next_chunk = 0;
    landing->until_ns = clock_ns() + UINT64_C(1000000) * LANDING_PREPARE_MS;
    atomic_store(&landing->prepared, false);
    for (uint32_t i = 0; i < LIMIT_REGIONS; i++)
        landing->left[i] = NOT_COUNTED;
    pthread_mutex_unlock(&landing->lock);
}

/* The lock is held. */
static void unpin(Landing *landing, unsigned index)
{
    LandingBlock *block = &landing->blocks[index];
    uint64_t length = block->count << PAGE_TABLE_CHUNK_SHIFT;
    uint64_t offset = block->chunk << PAGE_TABLE_CHUNK_SHIFT;
    uint64_t region = landing->regions->regions[block->region].length;

    if (!block->closed)
        landing_close(landing, block->region, block->chunk, block->count);
    rdma_memory_free(block->memory);
    landing_unmark(landing, block->region, block->chunk, block->count);
    atomic_fetch_sub_explicit(&landing->pinned, length < region - offset ? length : region - offset,
                              memory_order_relaxed);
    *block = landing->blocks[--landing->n_blocks];
}

void landing_end(Landing *landing)
{
    if (!landing->table)
        return;
    pthread_mutex_lock(&landing->lock);
    while (landing->n_blocks > 0)
        unpin(landing, landing->n_blocks - 1);
    rdma_device_unref(landing->device);
    landing->device = NULL;
    pthread_mutex_unlock(&landing->lock);
}

static void refused(Landing *landing, const char *name, uint64_t length, int error)
{
    char text[LIMIT_TEXT + 1];

    landing->refused_ns = clock_ns() + UINT64_C(1000000) * LANDING_REFUSED_MS;
    if (error == -EDQUOT || landing->hinted)
        return; /* some of it is given back as pages come */
    landing->hinted = true;
    rdma_memory_hint(length, text);
    log_warning("%s: RDMA: pages go through a buffer: %s", name, text);
}

/* Half of the budget is for other imports, and for exports. */
static bool is_too_much(const Landing *landing, uint64_t length)
{
    uint64_t most = rdma_device_budget(landing->device)->most / 2;

    return length > most ||
           atomic_load_explicit(&landing->pinned, memory_order_relaxed) > most - length;
}

/* The lock is held.  False: it cannot be pinned. */
static bool pin(Landing *landing, const char *name, uint32_t region, uint64_t first, uint64_t count)
{
    uint64_t offset = first << PAGE_TABLE_CHUNK_SHIFT;
    uint64_t length = landing->regions->regions[region].length - offset;
    RdmaMemory *memory;
    int error;

    if (length > count << PAGE_TABLE_CHUNK_SHIFT)
        length = count << PAGE_TABLE_CHUNK_SHIFT;
    count_allocated(landing, region);
    if (landing->n_blocks == LANDING_BLOCKS || length > landing->left[region])
        return false;
    if (is_too_much(landing, length)) {
        refused(landing, name, length, -EDQUOT);
        return false;
    }
    memory = rdma_memory_new(landing->device, landing->mirror->memory[region] + offset, length,
                             RDMA_ACCESS_LAND, &error);
    if (!memory) {
        refused(landing, name, length, error);
        return false;
    }
    landing->left[region] -= length;
    landing->blocks[landing->n_blocks++] = (LandingBlock){
        .region = region,
        .chunk = first,
        .count = count,
        .memory = memory,
        .checked = page_of(landing, region, first),
    };
    atomic_fetch_add_explicit(&landing->pinned, length, memory_order_relaxed);
    landing_mark(landing, region, first, count, rdma_memory_lkey(memory));
    return true;
}

static bool is_there(const Landing *landing, uint32_t region)
{
    return landing->pins[region] &&
           atomic_load_explicit(&landing->present[region], memory_order_acquire) &&
           !landing->regions->regions[region].removable && landing->mirror->memory[region];
}

bool landing_reach(Landing *landing, const char *name, uint32_t region, uint64_t page)
{
    uint64_t chunk, first, count;
    bool pinned = false;

    if (!landing->table || !landing->pins[region])
        return false;
    chunk = page << landing->regions->regions[region].page_shift >> PAGE_TABLE_CHUNK_SHIFT;
    if (!is_free(landing, region, chunk) || !is_there(landing, region))
        return false;
    pthread_mutex_lock(&landing->lock);
    if (landing->device && clock_ns() >= landing->refused_ns) {
        count = landing_run(landing, region, chunk, &first);
        if (count > 0)
            pinned = pin(landing, name, region, first, count);
    }
    pthread_mutex_unlock(&landing->lock);
    return pinned;
}

/* The next run that may be pinned from where the last call ended; 0: there is none. */
static uint64_t next_run(Landing *landing, uint64_t *ret_first)
{
    for (; landing->next_region < landing->regions->n; landing->next_region++) {
        uint32_t region = landing->next_region;

        while (is_there(landing, region) && landing->next_chunk < landing->chunks[region]) {
            uint64_t count = landing_run(landing, region, landing->next_chunk, ret_first);

            landing->next_chunk += count ? count : 1;
            if (count)
                return count;
        }
        landing->next_chunk = 0;
    }
    return 0;
}

bool landing_prepare(Landing *landing, const char *name)
{
    uint64_t first, count;
    bool more = false;

    if (!landing->table || atomic_load(&landing->prepared))
        return false;
    pthread_mutex_lock(&landing->lock);
    if (landing->device) {
        if (clock_ns() < landing->until_ns &&
            atomic_load_explicit(&landing->pinned, memory_order_relaxed) < LANDING_PREPARE) {
            count = next_run(landing, &first);
            more = count > 0 && pin(landing, name, landing->next_region, first, count);
        }
        if (!more)
            atomic_store(&landing->prepared, true);
    }
    pthread_mutex_unlock(&landing->lock);
    return more;
}

void landing_tidy(Landing *landing)
{
    /* Until the map is known, a hole is no page that will not come. */
    if (!landing->table || !page_table_has(landing->table, PAGE_TABLE_MAP_COMPLETE))
        return;
    pthread_mutex_lock(&landing->lock);
    for (unsigned i = landing->n_blocks; i-- > 0;)
        if (landing_is_over(landing, &landing->blocks[i])) {
            unpin(landing, i);
            landing->refused_ns = 0;
        }
    pthread_mutex_unlock(&landing->lock);
}

void landing_forget(Landing *landing, uint32_t region)
{
    if (!landing->table)
        return;
    pthread_mutex_lock(&landing->lock);
    for (unsigned i = landing->n_blocks; i-- > 0;)
        if (landing->blocks[i].region == region)
            unpin(landing, i);
    pthread_mutex_unlock(&landing->lock);
}

bool landing_has(Landing *landing, uint32_t region)
{
    bool has = false;

    if (!landing->table || !landing->pins[region])
        return false;
    pthread_mutex_lock(&landing->lock);
    for (unsigned i = 0; i < landing->n_blocks; i++)
        has = has || landing->blocks[i].region == region;
    pthread_mutex_unlock(&landing->lock);
    return has;
}
