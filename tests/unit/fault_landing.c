/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What of landing.c needs no device: which chunks are pinned as one, who finds them, when they may go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemon/fault/landing.h"
#include "tests/unit/core_regions.h"

#define PAGE  UINT64_C(4096)
#define CHUNK (UINT64_C(1) << PAGE_TABLE_CHUNK_SHIFT)

enum {
    CHUNK_PAGES = 512,
    PAGES = 40 * CHUNK_PAGES + 100, /* the last chunk is none of 2 MiB */
};

static RegionSet regions;
static PageTable table;
static Mirror mirror;
static const _Atomic bool present[LIMIT_REGIONS] = {true, true};
static Landing landing;
static uint8_t somewhere;

/* Chunks 0, 2 to 35 and 40 are allocated; region 1 has no mirror. */
static int setup(void **state)
{
    (void)state;
    regions.n = 0;
    add_region(&regions, PAGES, PAGE, -1);
    add_region(&regions, 100, PAGE, -1);
    if (page_table_create(&table, &regions))
        return -1;
    page_table_want_chunks(&table, 0, 0, 1);
    page_table_want_chunks(&table, 0, 2, 34);
    page_table_want_chunks(&table, 0, 40, 1);
    mirror.memory[0] = &somewhere; /* never touched: nothing is pinned */
    return page_table_keep_chunks(&table) ||
           landing_init(&landing, &table, &mirror, &regions, present);
}

static int teardown(void **state)
{
    (void)state;
    landing_deinit(&landing);
    page_table_deinit(&table);
    return 0;
}

static void check_run(uint64_t chunk, uint64_t first, uint64_t count)
{
    uint64_t found = UINT64_MAX;

    assert_int_equal(landing_run(&landing, 0, chunk, &found), count);
    if (count > 0)
        assert_int_equal(found, first);
}

static void what_is_allocated_is_pinned_block_by_block(void **state)
{
    uint64_t first;

    (void)state;
    check_run(0, 0, 1);
    check_run(1, 0, 0); /* to be placed by COPY: a page there would be in the way */
    check_run(2, 2, 2);
    check_run(3, 2, 2);
    check_run(16, 16, 2);
    check_run(31, 30, 2);
    check_run(35, 34, 2);
    check_run(36, 0, 0);
    check_run(40, 40, 1);
    check_run(41, 0, 0);
    assert_int_equal(landing_run(&landing, 1, 0, &first), 0);
}

static void what_is_pinned_is_not_pinned_again(void **state)
{
    (void)state;
    landing_mark(&landing, 0, 5, 3, 9);
    check_run(4, 4, 1);
    check_run(5, 0, 0);
    check_run(6, 0, 0);
    check_run(8, 8, 2);
    landing_close(&landing, 0, 5, 3);
    check_run(6, 0, 0);
    check_run(4, 4, 1);
    landing_unmark(&landing, 0, 5, 3);
    check_run(6, 6, 2);
}

/* Pages there never land, and those that were given back would be allocated again. */
static void what_can_be_removed_is_not_pinned(void **state)
{
    uint64_t first;
    uint32_t lkey;

    (void)state;
    landing_deinit(&landing);
    regions.regions[0].removable = true;
    assert_int_equal(landing_init(&landing, &table, &mirror, &regions, present), 0);
    assert_int_equal(landing_run(&landing, 0, 2, &first), 0);
    assert_int_equal(landing_find(&landing, 0, 2 * CHUNK, PAGE, &lkey), 0);
    regions.regions[0].removable = false;
}

static void check_found(uint64_t offset, uint64_t length, uint64_t found, uint32_t key)
{
    uint32_t lkey = 0;

    assert_int_equal(landing_find(&landing, 0, offset, length, &lkey), found);
    if (found > 0)
        assert_int_equal(lkey, key);
}

static void bytes_are_found_as_far_as_a_key_goes(void **state)
{
    uint32_t lkey;

    (void)state;
    check_found(0, PAGE, 0, 0);
    landing_mark(&landing, 0, 2, 3, 0); /* a key like any other */
    landing_mark(&landing, 0, 5, 2, 8);
    check_found(2 * CHUNK - PAGE, 2 * PAGE, 0, 0);
    check_found(2 * CHUNK, PAGE, PAGE, 0);
    check_found(2 * CHUNK + PAGE, 2 * CHUNK, 2 * CHUNK, 0);
    check_found(5 * CHUNK - PAGE, 3 * PAGE, PAGE, 0);
    check_found(5 * CHUNK, 2 * CHUNK, 2 * CHUNK, 8);
    check_found(7 * CHUNK - PAGE, CHUNK, PAGE, 8);
    landing_unmark(&landing, 0, 5, 2);
    check_found(5 * CHUNK, PAGE, 0, 0);
    landing_mark(&landing, 0, 40, 1, 3);
    check_found(40 * CHUNK + 99 * PAGE, PAGE, PAGE, 3);
    assert_int_equal(landing_find(&landing, 1, 0, PAGE, &lkey), 0);
}

static void not_waited(void *user, uint32_t region, uint64_t page)
{
    (void)user;
    (void)region;
    (void)page;
    fail();
}

static LandingBlock pinned_block(void)
{
    landing_mark(&landing, 0, 2, 2, 7);
    return (LandingBlock){.region = 0, .chunk = 2, .count = 2, .checked = 2L * CHUNK_PAGES};
}

static void a_block_is_closed_until_it_is_unpinned(void **state)
{
    const uint64_t page = 2 * CHUNK_PAGES;
    LandingBlock block = pinned_block();

    (void)state;
    page_table_mark_missing(&table, 0, page, 1);
    assert_int_equal(page_table_claim_run(&table, 0, page, 1), 1);
    block.checked = 4L * CHUNK_PAGES; /* passed over when it was a hole */
    assert_false(landing_is_over(&landing, &block));
    assert_true(block.closed);
    check_found(2 * CHUNK, PAGE, 0, 0);
    check_run(2, 0, 0);
    check_run(3, 0, 0);
    page_table_finish(&table, 0, page, 1, not_waited, NULL);
    assert_true(landing_is_over(&landing, &block));
    check_run(2, 0, 0);
    landing_unmark(&landing, 0, 2, 2);
    check_run(2, 2, 2);
}

static void a_block_goes_when_all_of_it_has_come(void **state)
{
    const uint64_t page = 2 * CHUNK_PAGES;
    LandingBlock block = pinned_block();

    (void)state;
    page_table_mark_missing(&table, 0, page, 2 * CHUNK_PAGES - 5); /* and holes at its end */
    page_table_mark_missing(&table, 0, page + 2 * CHUNK_PAGES, 1);
    assert_false(landing_is_over(&landing, &block));
    assert_int_equal(page_table_claim_run(&table, 0, page, 2 * CHUNK_PAGES), 2 * CHUNK_PAGES - 5);
    assert_false(landing_is_over(&landing, &block));
    page_table_finish(&table, 0, page, 1000, not_waited, NULL);
    assert_false(landing_is_over(&landing, &block));
    assert_int_equal(block.checked, page + 1000);
    page_table_receive(&table, 0, page + 1000, 19);
    assert_false(landing_is_over(&landing, &block));
    check_found(2 * CHUNK, PAGE, PAGE, 7); /* up to here it is in use */
    page_table_finish(&table, 0, page + 1000, 19, not_waited, NULL);
    assert_true(landing_is_over(&landing, &block));
    check_found(2 * CHUNK, PAGE, 0, 0);
}

/* A hole claimed when the block could still be found: its READ may be under way. */
static void a_late_claim_holds_a_block(void **state)
{
    const uint64_t hole = 2 * CHUNK_PAGES + 3;
    LandingBlock block = pinned_block();

    (void)state;
    block.closed = true;
    block.checked = 4L * CHUNK_PAGES; /* passed over when it was a hole */
    landing_unmark(&landing, 0, 2, 2);
    assert_int_equal(page_table_claim_fault(&table, 0, hole), PAGE_CLAIM_FETCH);
    assert_false(landing_is_over(&landing, &block));
    assert_false(landing_is_over(&landing, &block));
    page_table_finish(&table, 0, hole, 1, not_waited, NULL);
    assert_true(landing_is_over(&landing, &block));
}

static void removed_pages_hold_nothing(void **state)
{
    LandingBlock block = pinned_block();

    (void)state;
    page_table_mark_missing(&table, 0, 2 * CHUNK_PAGES, 2);
    page_table_remove(&table, 0, 2 * CHUNK_PAGES, 2, not_waited, NULL);
    assert_true(landing_is_over(&landing, &block));
}

static void without_a_device_nothing_is_pinned(void **state)
{
    (void)state;
    assert_false(landing_reach(&landing, "vm", 0, 2 * CHUNK_PAGES));
    assert_false(landing_prepare(&landing, "vm"));
    assert_false(landing_has(&landing, 0));
    landing_tidy(&landing);
    landing_forget(&landing, 0);
    assert_int_equal(landing.pinned, 0);
    check_found(2 * CHUNK, PAGE, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_allocated_is_pinned_block_by_block, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_is_pinned_is_not_pinned_again, setup, teardown),
        cmocka_unit_test_setup_teardown(what_can_be_removed_is_not_pinned, setup, teardown),
        cmocka_unit_test_setup_teardown(bytes_are_found_as_far_as_a_key_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_block_is_closed_until_it_is_unpinned, setup, teardown),
        cmocka_unit_test_setup_teardown(a_block_goes_when_all_of_it_has_come, setup, teardown),
        cmocka_unit_test_setup_teardown(a_late_claim_holds_a_block, setup, teardown),
        cmocka_unit_test_setup_teardown(removed_pages_hold_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(without_a_device_nothing_is_pinned, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
