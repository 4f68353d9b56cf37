/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/preload_plan.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static uint64_t table_words(void)
{
    uint64_t length = (uint64_t)PLAN_PAGES * PLAN_PAGE;

    return PLAN_RANGES *
           (page_table_region_words(length, PLAN_PAGE) + page_table_chunk_words(length));
}

uint8_t *plan_range(void *memory, unsigned range)
{
    return (uint8_t *)memory + (PLAN_GAP + range * (size_t)(PLAN_PAGES + PLAN_GAP)) * PLAN_PAGE;
}

void plan_make_message(ClientMessage *ret_message, const void *memory)
{
    const uint64_t length = (uint64_t)PLAN_PAGES * PLAN_PAGE;

    memset(ret_message, 0, sizeof *ret_message);
    ret_message->type = CLIENT_PLAN;
    ret_message->plan.table_size = PAGE_TABLE_HEADER_SIZE + table_words() * sizeof(uint64_t);
    ret_message->plan.n_ranges = PLAN_RANGES;
    for (unsigned i = 0; i < PLAN_RANGES; i++)
        ret_message->plan.ranges[i] = (ClientRange){
            .address = (uintptr_t)plan_range((void *)(uintptr_t)memory, i),
            .length = length,
            .page_size = PLAN_PAGE,
        };
    ret_message->plan.n_shards = PLAN_SHARDS;
    ret_message->plan.shards[0] = (ClientShard){.region = 1, .length = length};
    ret_message->plan.shards[1] =
        (ClientShard){.region = 0, .start = length / 2, .length = length / 2};
    ret_message->plan.shards[2] = (ClientShard){.region = 0, .length = length / 2};
}

int plan_make_table(const ClientMessage *message, bool sealed)
{
    int fd = memfd_create("table", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    PageTableHeader header = {
        .magic = PAGE_TABLE_MAGIC,
        .version = PAGE_TABLE_VERSION,
        .n_regions = message->plan.n_ranges,
        .n_words = table_words(),
    };
    uint64_t next = 0;

    for (uint32_t i = 0; i < message->plan.n_ranges; i++) {
        const ClientRange *range = &message->plan.ranges[i];
        header.regions[i].length = range->length;
        header.regions[i].page_size = range->page_size;
        header.regions[i].first_word = next;
        next += page_table_region_words(range->length, range->page_size);
    }
    for (uint32_t i = 0; i < message->plan.n_ranges; i++) {
        header.regions[i].first_chunk_word = next;
        next += page_table_chunk_words(message->plan.ranges[i].length);
    }
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)message->plan.table_size), 0);
    assert_int_equal(pwrite(fd, &header, sizeof header, 0), sizeof header);
    if (sealed)
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    return fd;
}

PageState plan_state(const Plan *plan, unsigned range, unsigned page)
{
    const uint64_t *words =
        (const uint64_t *)((const uint8_t *)plan->table.header + PAGE_TABLE_HEADER_SIZE) +
        plan->table.first_word[range];

    return (PageState)(words[page / PAGE_TABLE_PAGES_PER_WORD] >>
                           (page % PAGE_TABLE_PAGES_PER_WORD * PAGE_TABLE_BITS) &
                       PAGE_STATE_MASK);
}

void plan_set_state(const Plan *plan, unsigned range, unsigned page, PageState state)
{
    uint64_t *word = (uint64_t *)((uint8_t *)plan->table.header + PAGE_TABLE_HEADER_SIZE) +
                     plan->table.first_word[range] + page / PAGE_TABLE_PAGES_PER_WORD;
    unsigned shift = page % PAGE_TABLE_PAGES_PER_WORD * PAGE_TABLE_BITS;

    __atomic_store_n(word, (*word & ~(UINT64_C(15) << shift)) | (uint64_t)state << shift,
                     __ATOMIC_RELEASE);
}
