/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/core/page_table.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "daemon/core/page_table_words.h"

#define TABLE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static void lay_out(PageTable *table, const RegionSet *regions)
{
    uint64_t words = 0;

    table->n_regions = regions->n;
    for (uint32_t i = 0; i < regions->n; i++) {
        const Region *region = &regions->regions[i];
        table->first_word[i] = words;
        table->pages[i] = region_pages(region);
        words += page_table_region_words(region->length, region->page_size);
    }
    for (uint32_t i = 0; i < regions->n; i++) {
        table->first_chunk_word[i] = words;
        table->n_chunk_words[i] = page_table_chunk_words(regions->regions[i].length);
        words += table->n_chunk_words[i];
    }
    table->size = PAGE_TABLE_HEADER_SIZE + words * sizeof(uint64_t);
}

static int map(PageTable *table)
{
    void *base =
        mmap(NULL, table->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, table->fd, 0);

    if (base == MAP_FAILED)
        return -errno;
    table->header = base;
    table->words = (_Atomic uint64_t *)((char *)base + PAGE_TABLE_HEADER_SIZE);
    return 0;
}

/* A page of it that cannot be had when it is written to is a SIGBUS. */
static int allocate(int fd, uint64_t length)
{
    int result;

    do
        result = fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)length);
    while (result && errno == EINTR);
    return result ? -ENOSPC : 0;
}

int page_table_allocate(PageTable *table)
{
    return allocate(table->fd, table->size);
}

static void describe(PageTable *table, const RegionSet *regions)
{
    PageTableHeader *header = table->header;

    header->magic = PAGE_TABLE_MAGIC;
    header->version = PAGE_TABLE_VERSION;
    header->n_regions = regions->n;
    header->n_words = (table->size - PAGE_TABLE_HEADER_SIZE) / sizeof(uint64_t);
    for (uint32_t i = 0; i < regions->n; i++) {
        PageTableRegion *to = &header->regions[i];
        const Region *from = &regions->regions[i];
        to->length = from->length;
        to->page_size = from->page_size;
        to->first_word = table->first_word[i];
        to->first_chunk_word = table->first_chunk_word[i];
        to->guest_address = from->guest_address;
        memcpy(to->id, from->id, sizeof to->id);
    }
}

int page_table_create(PageTable *table, const RegionSet *regions)
{
    int error;

    memset(table, 0, sizeof *table);
    lay_out(table, regions);
    table->fd = memfd_create("postcopyd-pages", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (table->fd < 0)
        return -errno;
    if (ftruncate(table->fd, (off_t)table->size) || fcntl(table->fd, F_ADD_SEALS, TABLE_SEALS))
        error = -errno;
    else
        error = allocate(table->fd, PAGE_TABLE_HEADER_SIZE);
    if (!error)
        error = map(table);
    if (error) {
        close(table->fd);
        table->fd = -1;
        return error;
    }
    describe(table, regions);
    return 0;
}

static bool header_fits(const PageTable *table, const RegionSet *regions)
{
    const PageTableHeader *header = table->header;

    if (header->magic != PAGE_TABLE_MAGIC || header->version != PAGE_TABLE_VERSION ||
        header->n_regions != regions->n)
        return false;
    for (uint32_t i = 0; i < regions->n; i++)
        if (header->regions[i].length != regions->regions[i].length ||
            header->regions[i].page_size != regions->regions[i].page_size ||
            header->regions[i].first_word != table->first_word[i] ||
            header->regions[i].first_chunk_word != table->first_chunk_word[i])
            return false;
    return memchr(header->source, '\0', sizeof header->source) != NULL;
}

/*
 * Rule 13: mapped only because it cannot shrink under us, and because none of its pages can fail to
 * come: those of hugetlbfs carry seals too, but may be short.
 */
static bool may_be_mapped(int fd, uint64_t size)
{
    struct statfs system;
    struct stat status;
    int seals = fcntl(fd, F_GET_SEALS);

    return seals >= 0 && (seals & TABLE_SEALS) == TABLE_SEALS && fstatfs(fd, &system) == 0 &&
           system.f_type == TMPFS_MAGIC && fstat(fd, &status) == 0 &&
           (uint64_t)status.st_size == size;
}

int page_table_adopt(PageTable *table, const RegionSet *regions, int fd)
{
    int error;

    memset(table, 0, sizeof *table);
    table->fd = fd;
    lay_out(table, regions);
    error = may_be_mapped(fd, table->size) ? map(table) : -EINVAL;
    if (!error && !header_fits(table, regions))
        error = -EINVAL;
    if (error)
        page_table_deinit(table);
    return error;
}

void page_table_deinit(PageTable *table)
{
    if (table->header)
        munmap(table->header, table->size);
    if (table->fd >= 0)
        close(table->fd);
    for (uint32_t i = 0; i < table->n_regions; i++) {
        free(table->allocated[i]);
        table->allocated[i] = NULL;
    }
    table->header = NULL;
    table->fd = -1;
}

void page_table_want_chunks(PageTable *table, uint32_t region, uint64_t chunk, uint64_t count)
{
    for (uint64_t i = chunk; i < chunk + count && i / 64 < table->n_chunk_words[region]; i++)
        atomic_fetch_or_explicit(&table->words[table->first_chunk_word[region] + i / 64],
                                 UINT64_C(1) << (i % 64), memory_order_relaxed);
}

int page_table_keep_chunks(PageTable *table)
{
    for (uint32_t i = 0; i < table->n_regions; i++) {
        uint64_t n = table->n_chunk_words[i];
        uint64_t *copy = table->allocated[i];

        if (!copy && !(copy = calloc(n, sizeof *copy)))
            return -ENOMEM;
        for (uint64_t k = 0; k < n; k++)
            copy[k] = atomic_load_explicit(&table->words[table->first_chunk_word[i] + k],
                                           memory_order_acquire);
        table->allocated[i] = copy;
    }
    return 0;
}

void page_table_keep_vcpus(PageTable *table, const uint32_t *tids, uint32_t n)
{
    if (n > PAGE_TABLE_VCPUS)
        n = 0;
    if (n > 0)
        memcpy(table->header->vcpus, tids, n * sizeof *tids);
    table->header->n_vcpus = n;
}

uint32_t page_table_kept_vcpus(const PageTable *table, uint32_t *ret_tids)
{
    uint32_t n =
        __atomic_load_n(&table->header->n_vcpus, __ATOMIC_RELAXED); /* the client's to spoil */

    if (n > PAGE_TABLE_VCPUS)
        return 0;
    memcpy(ret_tids, table->header->vcpus, n * sizeof *ret_tids);
    return n;
}

void page_table_remove_region(PageTable *table, uint32_t region, PageWaited waited, void *user)
{
    uint64_t first = table->first_word[region];
    uint64_t page = 0;

    while (page < table->pages[region]) {
        uint64_t word = first + page / PAGE_TABLE_PAGES_PER_WORD;
        off_t at =
            lseek(table->fd, (off_t)(PAGE_TABLE_HEADER_SIZE + word * sizeof(uint64_t)), SEEK_DATA);
        off_t end = at < 0 ? at : lseek(table->fd, at, SEEK_HOLE);
        uint64_t from, until;

        if (end < 0)
            return;
        from = ((uint64_t)at - PAGE_TABLE_HEADER_SIZE) / sizeof(uint64_t);
        until = ((uint64_t)end - PAGE_TABLE_HEADER_SIZE) / sizeof(uint64_t);
        page = (from - first) * PAGE_TABLE_PAGES_PER_WORD;
        until = (until - first) * PAGE_TABLE_PAGES_PER_WORD;
        if (until > table->pages[region])
            until = table->pages[region];
        if (page < until)
            page_table_remove(table, region, page, until - page, waited, user);
        page = until;
    }
}

/* REQUESTED nibbles of a word become MISSING; others stay, without their marks. */
static uint64_t forget_word(uint64_t word)
{
    for (unsigned shift = 0; shift < 64; shift += PAGE_TABLE_BITS) {
        uint64_t state = (word >> shift) & PAGE_STATE_MASK;
        word = with_nibble(word, shift, state == PAGE_REQUESTED ? PAGE_MISSING : state);
    }
    return word;
}

/*
 * Calls each for every word ever written, with its region.  Parts of the memfd that never were hold
 * only HOLEs: they are skipped, not walked.
 */
static void walk(const PageTable *table,
                 void (*each)(_Atomic uint64_t *word, uint32_t region, void *user), void *user)
{
    off_t at = PAGE_TABLE_HEADER_SIZE;
    uint32_t region = 0;

    while ((at = lseek(table->fd, at, SEEK_DATA)) >= 0) {
        off_t end = lseek(table->fd, at, SEEK_HOLE);
        uint64_t word = ((uint64_t)at - PAGE_TABLE_HEADER_SIZE) / sizeof(uint64_t);
        uint64_t last = ((uint64_t)end - PAGE_TABLE_HEADER_SIZE) / sizeof(uint64_t);

        if (last > table->first_chunk_word[0])
            last = table->first_chunk_word[0]; /* what follows are no pages */
        for (; end >= 0 && word < last; word++) {
            while (region + 1 < table->n_regions && word >= table->first_word[region + 1])
                region++;
            each(&table->words[word], region, user);
        }
        if (end < 0)
            return;
        at = end;
    }
}

static void forget(_Atomic uint64_t *word, uint32_t region, void *user)
{
    uint64_t old = atomic_load_explicit(word, memory_order_relaxed);
    uint64_t new = forget_word(old);

    (void)region;
    (void)user;
    if (new != old)
        atomic_store_explicit(word, new, memory_order_relaxed);
}

void page_table_forget_requests(PageTable *table)
{
    walk(table, forget, NULL);
}

typedef struct Received {
    const PageTable *table;
    PageWaited each;
    void *user;
} Received;

static void find_received(_Atomic uint64_t *word, uint32_t region, void *user)
{
    const Received *received = user;
    uint64_t bits = state_bits(atomic_load_explicit(word, memory_order_relaxed), PAGE_RECEIVED);
    uint64_t first =
        (uint64_t)(word - received->table->words) - received->table->first_word[region];

    for (; bits; bits &= bits - 1) {
        uint64_t page =
            first * PAGE_TABLE_PAGES_PER_WORD + (uint64_t)__builtin_ctzll(bits) / PAGE_TABLE_BITS;
        if (page < received->table->pages[region])
            received->each(received->user, region, page);
    }
}

void page_table_each_received(const PageTable *table, PageWaited each, void *user)
{
    Received received = {.table = table, .each = each, .user = user};

    walk(table, find_received, &received);
}

typedef struct MissingWalk {
    const PageTable *table;
    void (*each)(void *user, uint32_t region, uint64_t page);
    void *user;
} MissingWalk;

static void look_for_missing(_Atomic uint64_t *word, uint32_t region, void *user)
{
    const MissingWalk *missing = user;
    const PageTable *table = missing->table;
    uint64_t index = (uint64_t)(word - table->words) - table->first_word[region];

    if (state_bits(atomic_load_explicit(word, memory_order_relaxed), PAGE_MISSING))
        missing->each(missing->user, region, index * PAGE_TABLE_PAGES_PER_WORD);
}

void page_table_walk_missing(const PageTable *table,
                             void (*each)(void *user, uint32_t region, uint64_t page), void *user)
{
    MissingWalk missing = {.table = table, .each = each, .user = user};

    walk(table, look_for_missing, &missing);
}

typedef struct PresentCount {
    const uint64_t *page_sizes;
    uint64_t bytes;
} PresentCount;

static void count_present(_Atomic uint64_t *word, uint32_t region, void *user)
{
    uint64_t value = atomic_load_explicit(word, memory_order_relaxed);
    PresentCount *count = user;

    for (unsigned shift = 0; shift < 64; shift += PAGE_TABLE_BITS) {
        uint64_t state = (value >> shift) & PAGE_STATE_MASK;
        if (state == PAGE_PRESENT || state == PAGE_REMOVED)
            count->bytes += count->page_sizes[region];
    }
}

uint64_t page_table_present_bytes(const PageTable *table, const uint64_t *page_sizes)
{
    PresentCount count = {.page_sizes = page_sizes};

    walk(table, count_present, &count);
    return count.bytes;
}
