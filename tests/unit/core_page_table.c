/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The page table: every transition, runs over word boundaries, adoption, sparseness.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/core/page_table.h"
#include "tests/unit/core_regions.h"

#define PAGE UINT64_C(4096)

static RegionSet regions;
static PageTable table;

static int set_up(void **state)
{
    (void)state;
    regions.n = 0;
    add_region(&regions, 100, PAGE, -1);
    add_region(&regions, 7, 2 << 20, -1);
    add_region(&regions, 33, PAGE, -1);
    return page_table_create(&table, &regions);
}

static int tear_down(void **state)
{
    (void)state;
    page_table_deinit(&table);
    return 0;
}

/* Puts a page into a state, whatever it was in. */
static void put(uint32_t region, uint64_t page, uint64_t nibble)
{
    _Atomic uint64_t *word = &table.words[table.first_word[region] + page / 16];
    unsigned shift = (unsigned)(page % 16) * 4;

    *word = (*word & ~(UINT64_C(15) << shift)) | nibble << shift;
}

static uint64_t unresolved(void)
{
    return atomic_load(&table.unresolved);
}

/* What was reported as waited for. */
static uint64_t waited[64];
static unsigned n_waited;

static void on_waited(void *user, uint32_t region, uint64_t page)
{
    assert_ptr_equal(user, waited);
    assert_int_equal(region, 0);
    waited[n_waited++] = page;
}

/* True if the page's mark came off. */
static bool finish_one(PageTable *of, uint32_t region, uint64_t page)
{
    n_waited = 0;
    page_table_finish(of, region, page, 1, on_waited, waited);
    assert_true(n_waited == 0 || waited[0] == page);
    return n_waited > 0;
}

static void a_new_table_is_all_hole(void **state)
{
    (void)state;
    assert_int_equal(table.header->magic, PAGE_TABLE_MAGIC);
    assert_int_equal(table.header->n_regions, 3);
    assert_string_equal(table.header->regions[2].id, "ram2");
    for (uint64_t page = 0; page < 100; page++)
        assert_int_equal(page_table_get(&table, 0, page), PAGE_HOLE);
    assert_int_equal(page_table_find_missing(&table, 0, 0, 100), 100);
    assert_false(page_table_has(&table, PAGE_TABLE_ARMED));
    page_table_set(&table, PAGE_TABLE_ARMED);
    assert_true(page_table_has(&table, PAGE_TABLE_ARMED));
    assert_false(page_table_has(&table, PAGE_TABLE_ARMED | PAGE_TABLE_GATE_OPEN));
}

static void a_fault_on_a_hole_depends_on_the_map(void **state)
{
    (void)state;
    assert_int_equal(page_table_claim_fault(&table, 0, 5), PAGE_CLAIM_FETCH);
    assert_int_equal(page_table_get(&table, 0, 5), PAGE_REQUESTED);
    page_table_set(&table, PAGE_TABLE_MAP_COMPLETE);
    assert_int_equal(page_table_claim_fault(&table, 0, 6), PAGE_CLAIM_ZERO);
    assert_int_equal(page_table_get(&table, 0, 6), PAGE_REQUESTED);
    assert_int_equal(unresolved(), 2);
    assert_false(finish_one(&table, 0, 5));
    assert_false(finish_one(&table, 0, 6));
    assert_int_equal(unresolved(), 0);
}

static void a_fault_on_every_other_state(void **state)
{
    static const struct {
        uint64_t before;
        PageClaim claim;
        uint64_t after;
        uint64_t unresolved;
    } cases[] = {
        {PAGE_MISSING, PAGE_CLAIM_FETCH, PAGE_REQUESTED, 1},
        {PAGE_REQUESTED, PAGE_CLAIM_WAIT, PAGE_REQUESTED | PAGE_WAITED, 0},
        {PAGE_REQUESTED | PAGE_WAITED, PAGE_CLAIM_WAIT, PAGE_REQUESTED | PAGE_WAITED, 0},
        {PAGE_RECEIVED, PAGE_CLAIM_WAIT, PAGE_RECEIVED | PAGE_WAITED, 0},
        {PAGE_PRESENT, PAGE_CLAIM_PRESENT, PAGE_PRESENT, 0},
        {PAGE_REMOVED, PAGE_CLAIM_REMOVED, PAGE_REMOVED, 0},
        {7, PAGE_CLAIM_REMOVED, 7, 0}, /* no such state: a client spoiled its table */
    };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        atomic_store(&table.unresolved, 0);
        put(2, 20, cases[i].before);
        assert_int_equal(page_table_claim_fault(&table, 2, 20), cases[i].claim);
        assert_int_equal(page_table_get(&table, 2, 20), cases[i].after);
        assert_int_equal(unresolved(), cases[i].unresolved);
        assert_int_equal(page_table_get(&table, 2, 19), PAGE_HOLE);
        assert_int_equal(page_table_get(&table, 2, 21), PAGE_HOLE);
    }
}

static void finishing_tells_of_waiters_once(void **state)
{
    (void)state;
    put(0, 3, PAGE_MISSING);
    assert_int_equal(page_table_claim_fault(&table, 0, 3), PAGE_CLAIM_FETCH);
    assert_int_equal(page_table_claim_fault(&table, 0, 3), PAGE_CLAIM_WAIT);
    assert_int_equal(page_table_claim_fault(&table, 0, 3), PAGE_CLAIM_WAIT);
    assert_true(finish_one(&table, 0, 3));
    assert_int_equal(page_table_get(&table, 0, 3), PAGE_PRESENT);
    assert_int_equal(page_table_claim_fault(&table, 0, 3), PAGE_CLAIM_PRESENT);
    assert_int_equal(unresolved(), 0);
}

static void removed_is_terminal(void **state)
{
    (void)state;
    put(0, 3, PAGE_MISSING);
    assert_int_equal(page_table_claim_fault(&table, 0, 3), PAGE_CLAIM_FETCH);
    put(0, 3, PAGE_REMOVED);
    assert_false(finish_one(&table, 0, 3));
    assert_int_equal(page_table_get(&table, 0, 3), PAGE_REMOVED);
    assert_int_equal(page_table_mark_missing(&table, 0, 3, 1), 0);
    assert_int_equal(page_table_get(&table, 0, 3), PAGE_REMOVED);
    assert_int_equal(unresolved(), 0);
}

static void a_run_is_finished_over_words(void **state)
{
    (void)state;
    for (uint64_t page = 10; page < 50; page++)
        put(0, page, page % 2 ? PAGE_REQUESTED : PAGE_RECEIVED);
    put(0, 15, PAGE_REQUESTED | PAGE_WAITED);
    put(0, 16, PAGE_RECEIVED | PAGE_WAITED);
    put(0, 30, PAGE_REMOVED);
    put(0, 48, PAGE_REQUESTED | PAGE_WAITED);
    atomic_store(&table.unresolved, 40);
    n_waited = 0;
    page_table_finish(&table, 0, 10, 40, on_waited, waited);
    assert_int_equal(n_waited, 3);
    assert_int_equal(waited[0], 15);
    assert_int_equal(waited[1], 16);
    assert_int_equal(waited[2], 48);
    for (uint64_t page = 10; page < 50; page++)
        assert_int_equal(page_table_get(&table, 0, page), page == 30 ? PAGE_REMOVED : PAGE_PRESENT);
    assert_int_equal(page_table_get(&table, 0, 9), PAGE_HOLE);
    assert_int_equal(page_table_get(&table, 0, 50), PAGE_HOLE);
    assert_int_equal(unresolved(), 0);
}

static void receiving_keeps_marks_and_what_is_removed(void **state)
{
    (void)state;
    put(0, 14, PAGE_REQUESTED | PAGE_WAITED);
    put(0, 15, PAGE_REQUESTED);
    put(0, 16, PAGE_REMOVED);
    put(0, 17, PAGE_REQUESTED);
    page_table_receive(&table, 0, 14, 4);
    assert_int_equal(page_table_get(&table, 0, 14), PAGE_RECEIVED | PAGE_WAITED);
    assert_int_equal(page_table_get(&table, 0, 15), PAGE_RECEIVED);
    assert_int_equal(page_table_get(&table, 0, 16), PAGE_REMOVED);
    assert_int_equal(page_table_get(&table, 0, 17), PAGE_RECEIVED);
}

static void removing_takes_every_state_and_tells_of_waiters(void **state)
{
    bool removed;

    (void)state;
    for (uint64_t page = 8; page < 40; page++)
        put(0, page, page % 6);
    put(0, 20, PAGE_REQUESTED | PAGE_WAITED);
    n_waited = 0;
    assert_int_equal(page_table_remove(&table, 0, 8, 32, on_waited, waited), 5);
    assert_int_equal(n_waited, 1);
    assert_int_equal(waited[0], 20);
    for (uint64_t page = 8; page < 40; page++)
        assert_int_equal(page_table_get(&table, 0, page), PAGE_REMOVED);
    assert_int_equal(page_table_same_run(&table, 0, 0, 100, &removed), 8);
    assert_false(removed);
    assert_int_equal(page_table_same_run(&table, 0, 8, 92, &removed), 32);
    assert_true(removed);
    assert_int_equal(page_table_same_run(&table, 0, 8, 5, &removed), 5);
    assert_int_equal(page_table_same_run(&table, 0, 40, 60, &removed), 60);
}

static void a_region_is_removed_whole_and_alone(void **state)
{
    (void)state;
    for (uint64_t page = 0; page < 100; page++)
        put(0, page, page % 5);
    put(0, 40, PAGE_REQUESTED | PAGE_WAITED);
    put(1, 0, PAGE_MISSING);
    n_waited = 0;
    page_table_remove_region(&table, 0, on_waited, waited);
    assert_int_equal(n_waited, 1);
    assert_int_equal(waited[0], 40);
    for (uint64_t page = 0; page < 100; page++)
        assert_int_equal(page_table_get(&table, 0, page), PAGE_REMOVED);
    assert_int_equal(page_table_get(&table, 1, 0), PAGE_MISSING);
}

/* A client spoils the shared bits after ARM: the copy stands. */
static void chunks_are_kept_as_they_were(void **state)
{
    (void)state;
    assert_false(page_table_is_allocated(&table, 0, 0));
    page_table_want_chunks(&table, 0, 0, 1000000); /* more than there are */
    assert_int_equal(page_table_keep_chunks(&table), 0);
    assert_true(page_table_is_allocated(&table, 0, 0));
    assert_false(page_table_is_allocated(&table, 1, 0));
    memset((void *)&table.words[table.first_chunk_word[0]], 0, 8 * table.n_chunk_words[0]);
    assert_true(page_table_is_allocated(&table, 0, 0));
    assert_int_equal(page_table_get(&table, 0, 0), PAGE_HOLE);
}

static void count_received(void *user, uint32_t region, uint64_t page)
{
    assert_int_equal(region, 0);
    assert_true(page == 3 || page == 50);
    ++*(unsigned *)user;
}

static void received_pages_are_found(void **state)
{
    unsigned n = 0;

    (void)state;
    put(0, 3, PAGE_RECEIVED | PAGE_WAITED);
    put(0, 4, PAGE_REQUESTED);
    put(0, 50, PAGE_RECEIVED);
    page_table_want_chunks(&table, 0, 0, 64); /* no pages, whatever they look like */
    page_table_each_received(&table, count_received, &n);
    assert_int_equal(n, 2);
}

static void marking_touches_holes_only(void **state)
{
    static const uint64_t kept[] = {PAGE_MISSING,  PAGE_REQUESTED, PAGE_REQUESTED | PAGE_WAITED,
                                    PAGE_RECEIVED, PAGE_PRESENT,   PAGE_REMOVED};

    (void)state;
    for (unsigned i = 0; i < 6; i++)
        put(0, 14 + i, kept[i]);
    assert_int_equal(page_table_mark_missing(&table, 0, 5, 60), 54);
    for (uint64_t page = 0; page < 100; page++) {
        uint64_t expected = page < 5 || page >= 65    ? PAGE_HOLE
                            : page >= 14 && page < 20 ? kept[page - 14]
                                                      : PAGE_MISSING;
        assert_int_equal(page_table_get(&table, 0, page), expected);
    }
    assert_int_equal(page_table_get(&table, 1, 0), PAGE_HOLE);
}

/* Every start and length that crosses none, one or two word boundaries. */
static void a_run_is_claimed_whole_over_words(void **state)
{
    (void)state;
    for (uint64_t first = 0; first < 34; first++)
        for (uint64_t n = 1; n <= 40; n++) {
            page_table_mark_missing(&table, 0, 0, 100);
            assert_int_equal(page_table_claim_run(&table, 0, first, n), n);
            assert_int_equal(unresolved(), n);
            for (uint64_t page = 0; page < 100; page++) {
                bool claimed = page >= first && page < first + n;
                assert_int_equal(page_table_get(&table, 0, page),
                                 claimed ? PAGE_REQUESTED : PAGE_MISSING);
            }
            for (uint64_t page = first; page < first + n; page++)
                put(0, page, PAGE_MISSING);
            atomic_store(&table.unresolved, 0);
        }
}

static void a_run_ends_at_what_is_not_missing(void **state)
{
    (void)state;
    for (uint64_t stop = 0; stop < 100; stop++) {
        page_table_mark_missing(&table, 0, 0, 100);
        put(0, stop, PAGE_PRESENT);
        assert_int_equal(page_table_claim_run(&table, 0, 0, 100), stop);
        assert_int_equal(unresolved(), stop);
        for (uint64_t page = 0; page <= stop; page++)
            put(0, page, PAGE_HOLE);
        atomic_store(&table.unresolved, 0);
    }
    page_table_mark_missing(&table, 2, 0, 33);
    assert_int_equal(page_table_claim_run(&table, 2, 30, 1000), 3); /* and at the region's end */
    assert_int_equal(unresolved(), 3);
}

static void the_next_missing_page_is_found(void **state)
{
    (void)state;
    for (uint64_t page = 0; page < 33; page++)
        put(2, page, page % 2 ? PAGE_PRESENT : PAGE_REQUESTED | PAGE_WAITED);
    for (uint64_t at = 0; at < 33; at++) {
        uint64_t before = page_table_get(&table, 2, at);
        put(2, at, PAGE_MISSING);
        for (uint64_t from = 0; from < 33; from++) {
            assert_int_equal(page_table_find_missing(&table, 2, from, 33), from <= at ? at : 33);
            assert_int_equal(page_table_find_missing(&table, 2, from, at), at);
        }
        put(2, at, before);
    }
    assert_int_equal(page_table_find_missing(&table, 2, 0, 1000), 33);
}

/* Reopened as a successor would get it. */
static int adopt(PageTable *ret_table)
{
    return page_table_adopt(ret_table, &regions, fcntl(table.fd, F_DUPFD_CLOEXEC, 3));
}

static void a_table_is_adopted_with_its_content(void **state)
{
    uint64_t sizes[] = {PAGE, 2 << 20, PAGE};
    PageTable adopted;

    (void)state;
    put(0, 99, PAGE_PRESENT);
    put(1, 6, PAGE_REMOVED);
    put(2, 0, PAGE_REQUESTED | PAGE_WAITED);
    assert_int_equal(adopt(&adopted), 0);
    assert_int_equal(page_table_get(&adopted, 0, 99), PAGE_PRESENT);
    assert_int_equal(page_table_present_bytes(&adopted, sizes), PAGE + (2 << 20));
    page_table_deinit(&adopted);
}

static void requests_are_forgotten(void **state)
{
    static const uint64_t before[] = {PAGE_HOLE,
                                      PAGE_MISSING,
                                      PAGE_REQUESTED,
                                      PAGE_REQUESTED | PAGE_WAITED,
                                      PAGE_RECEIVED | PAGE_WAITED,
                                      PAGE_PRESENT,
                                      PAGE_REMOVED};
    static const uint64_t after[] = {PAGE_HOLE,     PAGE_MISSING, PAGE_MISSING, PAGE_MISSING,
                                     PAGE_RECEIVED, PAGE_PRESENT, PAGE_REMOVED};
    (void)state;
    for (uint32_t region = 0; region < 3; region += 2)
        for (uint64_t page = 0; page < 33; page++)
            put(region, page, before[page % 7]);
    page_table_forget_requests(&table);
    for (uint32_t region = 0; region < 3; region += 2)
        for (uint64_t page = 0; page < 33; page++)
            assert_int_equal(page_table_get(&table, region, page), after[page % 7]);
}

static void a_table_of_other_regions_is_refused(void **state)
{
    PageTable adopted;

    (void)state;
    regions.regions[0].length -= PAGE;
    assert_int_equal(adopt(&adopted), -EINVAL);
    regions.regions[0].length += PAGE;
    regions.n = 2;
    assert_int_equal(adopt(&adopted), -EINVAL);
    regions.n = 3;
    table.header->regions[1].page_size = PAGE;
    assert_int_equal(adopt(&adopted), -EINVAL);
    table.header->regions[1].page_size = 2 << 20;
    table.header->regions[2].first_word++;
    assert_int_equal(adopt(&adopted), -EINVAL);
    table.header->regions[2].first_word--;
    table.header->magic++;
    assert_int_equal(adopt(&adopted), -EINVAL);
    table.header->magic--;
    table.header->version++;
    assert_int_equal(adopt(&adopted), -EINVAL);
    table.header->version--;
    memset(table.header->source, 'x', sizeof table.header->source);
    assert_int_equal(adopt(&adopted), -EINVAL);
    table.header->source[0] = '\0';
    assert_int_equal(adopt(&adopted), 0);
    page_table_deinit(&adopted);
}

static void vcpus_are_kept_for_whoever_adopts_it(void **state)
{
    static uint32_t tids[PAGE_TABLE_VCPUS + 1], kept[PAGE_TABLE_VCPUS];
    PageTable adopted;

    (void)state;
    for (uint32_t i = 0; i <= PAGE_TABLE_VCPUS; i++)
        tids[i] = 7 * i + 1;
    assert_int_equal(page_table_kept_vcpus(&table, kept), 0);
    page_table_keep_vcpus(&table, tids, PAGE_TABLE_VCPUS);
    assert_int_equal(adopt(&adopted), 0);
    assert_int_equal(page_table_kept_vcpus(&adopted, kept), PAGE_TABLE_VCPUS);
    assert_memory_equal(kept, tids, sizeof kept);
    page_table_keep_vcpus(&table, tids, PAGE_TABLE_VCPUS + 1);
    assert_int_equal(page_table_kept_vcpus(&adopted, kept), 0);
    table.header->n_vcpus = PAGE_TABLE_VCPUS + 1; /* by a client */
    assert_int_equal(page_table_kept_vcpus(&adopted, kept), 0);
    page_table_deinit(&adopted);
}

/* A copy of the table in a memfd with other seals or another size. */
static int adopt_copy(uint64_t size, int seals)
{
    int fd = memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    PageTable adopted;
    int error;

    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    assert_true(pwrite(fd, table.header, PAGE_TABLE_HEADER_SIZE, 0) == PAGE_TABLE_HEADER_SIZE);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    error = page_table_adopt(&adopted, &regions, fd);
    if (!error)
        page_table_deinit(&adopted);
    else
        assert_int_equal(fcntl(fd, F_GETFD), -1); /* taken, so closed */
    return error;
}

static void a_table_that_could_shrink_is_refused(void **state)
{
    int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

    (void)state;
    assert_int_equal(adopt_copy(table.size, all), 0);
    assert_int_equal(adopt_copy(table.size, F_SEAL_GROW), -EINVAL);
    assert_int_equal(adopt_copy(table.size, F_SEAL_SHRINK), -EINVAL);
    assert_int_equal(adopt_copy(table.size - 8, all), -EINVAL);
    assert_int_equal(adopt_copy(table.size + 4096, all), -EINVAL);
}

/* Its seals say that it cannot shrink, but its pages may not be there. */
static void a_table_of_huge_pages_is_refused(void **state)
{
    enum { PAGES = 4126752 }; /* whose table is one huge page long */
    RegionSet set = {0};
    PageTable made, adopted;
    int fd;

    (void)state;
    add_region(&set, PAGES, PAGE, -1);
    assert_int_equal(page_table_create(&made, &set), 0);
    assert_int_equal(made.size, 2 << 20);
    page_table_deinit(&made);
    fd = memfd_create("table", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
    if (fd < 0)
        skip(); /* this kernel has no huge pages */
    assert_int_equal(ftruncate(fd, 2 << 20), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
    assert_int_equal(page_table_adopt(&adopted, &set, fd), -EINVAL);
}

static void what_is_no_memfd_is_refused(void **state)
{
    PageTable adopted;

    (void)state;
    assert_int_equal(page_table_adopt(&adopted, &regions, open("/dev/null", O_RDWR | O_CLOEXEC)),
                     -EINVAL);
}

static void the_table_cannot_be_resized(void **state)
{
    (void)state;
    assert_int_equal(ftruncate(table.fd, 0), -1);
    assert_int_equal(ftruncate(table.fd, 1 << 20), -1);
}

static void a_terabyte_costs_nothing_until_it_is_mapped(void **state)
{
    uint64_t pages = (UINT64_C(1) << 40) / PAGE;
    uint64_t sizes[] = {PAGE, PAGE};
    struct stat status;
    RegionSet big = {0};
    PageTable sparse;

    (void)state;
    add_region(&big, pages, PAGE, -1);
    add_region(&big, 10, PAGE, -1);
    assert_int_equal(page_table_create(&sparse, &big), 0);
    assert_int_equal(page_table_mark_missing(&sparse, 0, pages - 1, 1), 1);
    assert_int_equal(page_table_claim_fault(&sparse, 0, pages / 2), PAGE_CLAIM_FETCH);
    assert_false(finish_one(&sparse, 0, pages / 2));
    assert_int_equal(page_table_present_bytes(&sparse, sizes), PAGE);
    page_table_forget_requests(&sparse);
    assert_int_equal(fstat(sparse.fd, &status), 0);
    assert_true(sparse.size > UINT64_C(100) << 20);
    assert_true(status.st_blocks * 512 < 8 << 20);
    page_table_deinit(&sparse);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_new_table_is_all_hole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_fault_on_a_hole_depends_on_the_map, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_fault_on_every_other_state, set_up, tear_down),
        cmocka_unit_test_setup_teardown(finishing_tells_of_waiters_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(removed_is_terminal, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_run_is_finished_over_words, set_up, tear_down),
        cmocka_unit_test_setup_teardown(receiving_keeps_marks_and_what_is_removed, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(removing_takes_every_state_and_tells_of_waiters, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_region_is_removed_whole_and_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(chunks_are_kept_as_they_were, set_up, tear_down),
        cmocka_unit_test_setup_teardown(received_pages_are_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(marking_touches_holes_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_run_is_claimed_whole_over_words, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_run_ends_at_what_is_not_missing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_next_missing_page_is_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_table_is_adopted_with_its_content, set_up, tear_down),
        cmocka_unit_test_setup_teardown(requests_are_forgotten, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_table_of_other_regions_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(vcpus_are_kept_for_whoever_adopts_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_table_that_could_shrink_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_no_memfd_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_table_of_huge_pages_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_table_cannot_be_resized, set_up, tear_down),
        cmocka_unit_test(a_terabyte_costs_nothing_until_it_is_mapped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
