/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/lib/table.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int check_file(int fd, uint64_t size, Reason *ret_reason)
{
    int seals = fcntl(fd, F_GET_SEALS);
    struct stat st;

    if (seals < 0 || !(seals & F_SEAL_SHRINK))
        return reason_set(ret_reason, -EPERM, "the page table is not sealed against shrinking");
    if (fstat(fd, &st) < 0)
        return reason_set(ret_reason, -errno, "the page table: %s", strerror(errno));
    if ((uint64_t)st.st_size != size || size < PAGE_TABLE_HEADER_SIZE)
        return reason_set(ret_reason, -EINVAL, "the page table's size is %lld, not %llu",
                          (long long)st.st_size, (unsigned long long)size);
    return 0;
}

static bool words_are_taken(const Table *table, uint32_t n, uint64_t first, uint64_t end)
{
    for (uint32_t i = 0; i < n; i++)
        if (first < table->first_word[i] + table->n_words[i] && table->first_word[i] < end)
            return true;
    return false;
}

static bool copy_region(Table *table, uint32_t i, const Region *region, uint64_t limit)
{
    PageTableRegion copy;
    uint64_t end, chunk_end;

    memcpy(&copy, &table->header->regions[i], sizeof copy);
    if (copy.length != region->length || copy.page_size != region->page_size)
        return false;
    table->first_word[i] = copy.first_word;
    table->n_words[i] = page_table_region_words(region->length, region->page_size);
    table->first_chunk_word[i] = copy.first_chunk_word;
    table->n_chunk_words[i] = page_table_chunk_words(region->length);
    return !__builtin_add_overflow(copy.first_word, table->n_words[i], &end) && end <= limit &&
           !__builtin_add_overflow(copy.first_chunk_word, table->n_chunk_words[i], &chunk_end) &&
           chunk_end <= limit && !words_are_taken(table, i, copy.first_word, end);
}

static int copy_layout(Table *table, const Regions *regions, Reason *ret_reason)
{
    const PageTableHeader *header = table->header;
    uint64_t room = (table->size - PAGE_TABLE_HEADER_SIZE) / sizeof(uint64_t);
    uint64_t n_words = header->n_words;

    if (header->magic != PAGE_TABLE_MAGIC || header->version != PAGE_TABLE_VERSION)
        return reason_set(ret_reason, -EINVAL, "the page table is of another version");
    if (header->n_regions != regions->n || n_words > room)
        return reason_set(ret_reason, -EINVAL, "the page table does not fit this guest");
    for (uint32_t i = 0; i < regions->n; i++)
        if (!copy_region(table, i, &regions->list[i], n_words))
            return reason_set(ret_reason, -EINVAL, "the page table does not fit the region at %p",
                              (void *)regions->list[i].address);
    table->n_regions = (uint32_t)regions->n;
    return 0;
}

int table_init(Table *table, int fd, uint64_t size, const Regions *regions, Reason *ret_reason)
{
    int error = check_file(fd, size, ret_reason);
    void *mapped;

    *table = (Table){.fd = fd, .size = size};
    if (!error) {
        mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
        if (mapped == MAP_FAILED)
            error =
                reason_set(ret_reason, -errno, "cannot map the page table: %s", strerror(errno));
        else
            table->header = mapped;
    }
    if (!error)
        error = copy_layout(table, regions, ret_reason);
    if (error)
        table_deinit(table);
    return error;
}

void table_deinit(Table *table)
{
    if (table->header)
        munmap(table->header, table->size);
    if (table->fd >= 0)
        close(table->fd);
    table->header = NULL;
    table->fd = -1;
}

uint32_t table_progress(const Table *table)
{
    return __atomic_load_n(&table->header->progress, __ATOMIC_ACQUIRE);
}

void table_set_armed(Table *table)
{
    __atomic_or_fetch(&table->header->progress, PAGE_TABLE_ARMED, __ATOMIC_SEQ_CST);
}

static uint64_t *chunk_words(const Table *table, uint32_t region)
{
    return (uint64_t *)((uint8_t *)table->header + PAGE_TABLE_HEADER_SIZE) +
           table->first_chunk_word[region];
}

static bool is_wanted(const Table *table, uint32_t region, uint64_t chunk)
{
    return __atomic_load_n(&chunk_words(table, region)[chunk / 64], __ATOMIC_RELAXED) >>
               (chunk % 64) &
           1;
}

uint64_t table_next_wanted(const Table *table, uint32_t region, uint64_t from, uint64_t *ret_chunk)
{
    uint64_t end = table->n_chunk_words[region] * 64;
    uint64_t n = 0;

    while (from < end && !is_wanted(table, region, from))
        from++;
    *ret_chunk = from;
    while (from + n < end && is_wanted(table, region, from + n))
        n++;
    return n;
}

void table_drop_wanted(Table *table, uint32_t region, uint64_t from)
{
    for (uint64_t chunk = from; chunk < table->n_chunk_words[region] * 64; chunk++)
        if (is_wanted(table, region, chunk))
            __atomic_and_fetch(&chunk_words(table, region)[chunk / 64],
                               ~(UINT64_C(1) << (chunk % 64)), __ATOMIC_RELAXED);
}

void table_remove(Table *table, uint32_t region, uint64_t page, uint64_t count)
{
    uint64_t *words =
        (uint64_t *)((uint8_t *)table->header + PAGE_TABLE_HEADER_SIZE) + table->first_word[region];
    uint64_t end = page + count;

    if (end > table->n_words[region] * PAGE_TABLE_PAGES_PER_WORD)
        end = table->n_words[region] * PAGE_TABLE_PAGES_PER_WORD;
    for (; page < end; page++) {
        uint64_t *word = &words[page / PAGE_TABLE_PAGES_PER_WORD];
        unsigned shift = (unsigned)(page % PAGE_TABLE_PAGES_PER_WORD) * PAGE_TABLE_BITS;
        uint64_t old = __atomic_load_n(word, __ATOMIC_RELAXED);

        while (!__atomic_compare_exchange_n(
            word, &old, (old & ~(UINT64_C(15) << shift)) | (uint64_t)PAGE_REMOVED << shift, true,
            __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            ;
    }
}

/* Which of a word's pages are MISSING, REQUESTED or RECEIVED, at each page's lowest bit. */
static uint64_t unresolved_pages(uint64_t word)
{
    return (word | word >> 1) & ~(word >> 2) & UINT64_C(0x1111111111111111);
}

static void count_word(uint64_t word, uint64_t pages, TableCounts *counts)
{
    uint64_t low = word & pages;
    uint64_t high = word >> 1 & pages;

    counts->missing += (uint64_t)__builtin_popcountll(low & ~high);
    counts->requested += (uint64_t)__builtin_popcountll(high & ~low);
    counts->received += (uint64_t)__builtin_popcountll(low & high);
}

static void count_words(const Table *table, uint64_t first, uint64_t end, TableCounts *counts)
{
    const uint64_t *words =
        (const uint64_t *)((const uint8_t *)table->header + PAGE_TABLE_HEADER_SIZE);

    for (uint64_t i = first; i < end; i++) {
        uint64_t word = __atomic_load_n(&words[i], __ATOMIC_ACQUIRE);
        uint64_t pages = unresolved_pages(word);
        if (pages)
            count_word(word, pages, counts);
    }
}

static uint64_t word_offset(uint64_t word)
{
    return PAGE_TABLE_HEADER_SIZE + word * sizeof(uint64_t);
}

/* Parts of the memfd never written are skipped: reading them would allocate them. */
static void count_region(const Table *table, uint32_t region, TableCounts *counts)
{
    uint64_t next = table->first_word[region];
    uint64_t end = next + table->n_words[region];

    while (next < end) {
        off_t data = lseek(table->fd, (off_t)word_offset(next), SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            return;
        off_t hole = data < 0 ? data : lseek(table->fd, data, SEEK_HOLE);
        uint64_t until = end;
        if (hole >= 0) {
            uint64_t from = ((uint64_t)data - PAGE_TABLE_HEADER_SIZE) / sizeof(uint64_t);
            next = from > next ? from : next;
            until = ((uint64_t)hole - PAGE_TABLE_HEADER_SIZE) / sizeof(uint64_t);
            until = until < end ? until : end;
        }
        if (next < until)
            count_words(table, next, until, counts);
        next = until;
    }
}

bool table_count_unresolved(const Table *table, TableCounts *ret_counts)
{
    *ret_counts = (TableCounts){0};
    for (uint32_t i = 0; i < table->n_regions; i++) {
        bool none = ret_counts->missing + ret_counts->requested + ret_counts->received == 0;
        if (none)
            ret_counts->region = i;
        count_region(table, i, ret_counts);
    }
    return ret_counts->missing + ret_counts->requested + ret_counts->received > 0;
}
