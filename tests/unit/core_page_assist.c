/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The page table in assist mode: no map, and QEMU and the daemon both bring pages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/core/page_table.h"
#include "tests/unit/core_regions.h"

enum { PAGES = 100 };

static RegionSet regions;
static PageTable table;
static uint64_t waited[PAGES];
static unsigned n_waited;

static int set_up(void **state)
{
    (void)state;
    regions.n = 0;
    n_waited = 0;
    add_region(&regions, PAGES, 4096, -1);
    add_region(&regions, 20, 4096, -1);
    return page_table_create(&table, &regions);
}

static int tear_down(void **state)
{
    (void)state;
    page_table_deinit(&table);
    return 0;
}

static void put(uint64_t page, uint64_t nibble)
{
    _Atomic uint64_t *word = &table.words[table.first_word[0] + page / 16];
    unsigned shift = (unsigned)(page % 16) * 4;

    *word = (*word & ~(UINT64_C(15) << shift)) | nibble << shift;
}

static void on_waited(void *user, uint32_t region, uint64_t page)
{
    assert_ptr_equal(user, waited);
    assert_int_equal(region, 0);
    waited[n_waited++] = page;
}

static void a_run_takes_holes_and_missing_pages(void **state)
{
    (void)state;
    put(17, PAGE_MISSING);
    put(40, PAGE_MISSING);
    put(50, PAGE_PRESENT);
    assert_int_equal(page_table_claim_any_run(&table, 0, 10, 80), 40);
    for (uint64_t page = 10; page < 50; page++)
        assert_int_equal(page_table_get(&table, 0, page), PAGE_REQUESTED);
    assert_int_equal(page_table_get(&table, 0, 9), PAGE_HOLE);
    assert_int_equal(page_table_get(&table, 0, 50), PAGE_PRESENT);
    assert_int_equal(page_table_get(&table, 0, 51), PAGE_HOLE);
    assert_int_equal(atomic_load(&table.unresolved), 40);
}

static void a_run_ends_at_every_other_state(void **state)
{
    static const uint64_t states[] = {PAGE_REQUESTED, PAGE_RECEIVED, PAGE_PRESENT,
                                      PAGE_REMOVED,   PAGE_FOUND,    PAGE_REQUESTED | PAGE_WAITED};

    (void)state;
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        put(16 * i + 3, states[i]);
        assert_int_equal(page_table_claim_any_run(&table, 0, 16 * i, 16), 3);
        assert_int_equal(page_table_claim_any_run(&table, 0, 16 * i + 3, 13), 0);
        assert_int_equal(page_table_get(&table, 0, 16 * i + 3), states[i]);
    }
    /* Nor beyond the region's end, into the next one's words. */
    assert_int_equal(page_table_claim_any_run(&table, 0, 96, 50), 4);
    assert_int_equal(page_table_get(&table, 1, 0), PAGE_HOLE);
}

static void what_the_map_would_have_said_still_counts_elsewhere(void **state)
{
    (void)state;
    put(1, PAGE_MISSING);
    assert_int_equal(page_table_claim_run(&table, 0, 0, 4), 0);
    assert_int_equal(page_table_claim_run(&table, 0, 1, 4), 1);
}

static void what_is_given_back_can_be_had_again(void **state)
{
    (void)state;
    assert_int_equal(page_table_claim_any_run(&table, 0, 10, 30), 30);
    assert_int_equal(page_table_claim_fault(&table, 0, 20), PAGE_CLAIM_WAIT);
    page_table_give_back(&table, 0, 12, 20, on_waited, waited);
    assert_int_equal(n_waited, 1);
    assert_int_equal(waited[0], 20);
    assert_int_equal(atomic_load(&table.unresolved), 10);
    assert_int_equal(page_table_get(&table, 0, 11), PAGE_REQUESTED);
    assert_int_equal(page_table_get(&table, 0, 12), PAGE_HOLE);
    assert_int_equal(page_table_get(&table, 0, 20), PAGE_HOLE);
    assert_int_equal(page_table_get(&table, 0, 31), PAGE_HOLE);
    assert_int_equal(page_table_get(&table, 0, 32), PAGE_REQUESTED);
    assert_int_equal(page_table_find_missing(&table, 0, 0, PAGES), PAGES);
    assert_int_equal(page_table_claim_fault(&table, 0, 20), PAGE_CLAIM_FETCH);
    assert_int_equal(page_table_claim_any_run(&table, 0, 12, 20), 8);
}

/* What was placed in the meantime stays so. */
static void giving_back_takes_nothing_from_others(void **state)
{
    static const uint64_t states[] = {PAGE_FOUND, PAGE_PRESENT, PAGE_REMOVED,
                                      PAGE_PRESENT | PAGE_WAITED};

    (void)state;
    assert_int_equal(page_table_claim_any_run(&table, 0, 0, 8), 8);
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++)
        put(2 * i, states[i]);
    page_table_give_back(&table, 0, 0, 8, on_waited, waited);
    assert_int_equal(n_waited, 0);
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        assert_int_equal(page_table_get(&table, 0, 2 * i), states[i]);
        assert_int_equal(page_table_get(&table, 0, 2 * i + 1), PAGE_HOLE);
    }
}

static void what_was_being_placed_is_given_back_as_well(void **state)
{
    (void)state;
    assert_int_equal(page_table_claim_any_run(&table, 0, 0, 8), 8);
    assert_int_equal(page_table_claim_fault(&table, 0, 3), PAGE_CLAIM_WAIT);
    page_table_receive(&table, 0, 0, 4);
    assert_int_equal(page_table_get(&table, 0, 3), PAGE_RECEIVED | PAGE_WAITED);
    page_table_give_back(&table, 0, 0, 8, on_waited, waited);
    assert_int_equal(n_waited, 1);
    for (uint64_t page = 0; page < 8; page++)
        assert_int_equal(page_table_get(&table, 0, page), PAGE_HOLE);
    assert_int_equal(atomic_load(&table.unresolved), 0);
}

/* What QEMU placed and said so, or the guest gave back, is not turned into something found. */
static void what_was_there_already_is_found(void **state)
{
    (void)state;
    assert_int_equal(page_table_claim_any_run(&table, 0, 0, 6), 6);
    assert_int_equal(page_table_claim_fault(&table, 0, 1), PAGE_CLAIM_WAIT);
    page_table_receive(&table, 0, 0, 2);
    put(3, PAGE_PRESENT);
    put(4, PAGE_REMOVED);
    page_table_found(&table, 0, 0, 5, on_waited, waited);
    assert_int_equal(n_waited, 1);
    assert_int_equal(waited[0], 1);
    for (uint64_t page = 0; page < 3; page++)
        assert_int_equal(page_table_get(&table, 0, page), PAGE_FOUND);
    assert_int_equal(page_table_get(&table, 0, 3), PAGE_PRESENT);
    assert_int_equal(page_table_get(&table, 0, 4), PAGE_REMOVED);
    assert_int_equal(page_table_get(&table, 0, 5), PAGE_REQUESTED);
    assert_int_equal(atomic_load(&table.unresolved), 1);
}

/* Never zeroes: it was but found there, and is not there now. */
static void a_fault_on_what_was_found_is_fetched(void **state)
{
    (void)state;
    put(7, PAGE_FOUND);
    put(8, PAGE_FOUND);
    assert_int_equal(page_table_claim_fault(&table, 0, 7), PAGE_CLAIM_FETCH);
    assert_int_equal(page_table_get(&table, 0, 7), PAGE_REQUESTED);
    page_table_set(&table, PAGE_TABLE_MAP_COMPLETE);
    assert_int_equal(page_table_claim_fault(&table, 0, 8), PAGE_CLAIM_FETCH);
    assert_int_equal(page_table_claim_run(&table, 0, 9, 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_run_takes_holes_and_missing_pages, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_run_ends_at_every_other_state, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_the_map_would_have_said_still_counts_elsewhere, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_is_given_back_can_be_had_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(giving_back_takes_nothing_from_others, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_being_placed_is_given_back_as_well, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_was_there_already_is_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_fault_on_what_was_found_is_fetched, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
