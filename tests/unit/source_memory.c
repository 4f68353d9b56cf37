/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading a source's memory, and finding out which pages of it have content.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/source/memory.h"
#include "tests/unit/core_regions.h"

#define PAGE      UINT64_C(4096)
#define HUGE_PAGE (UINT64_C(2) << 20)

static RegionSet regions;
static Memory memory;
static PeerExtent extents[PEER_MAP_EXTENTS];
static uint32_t n_extents;
static uint64_t next;
static uint8_t data[64 * 4096];

static void open_memory(void)
{
    assert_int_equal(memory_init(&memory, &regions, getpid()), 0);
}

static int tear_down(void **state)
{
    (void)state;
    memory_deinit(&memory);
    region_set_deinit(&regions);
    return 0;
}

/* A shared region of so many pages that starts at one of its file's pages. */
static int add_shared(uint64_t pages, uint64_t page_size, uint64_t offset)
{
    int fd = memfd_create("ram", MFD_CLOEXEC);

    assert_int_equal(ftruncate(fd, (off_t)(offset + pages * page_size)), 0);
    add_region(&regions, pages, page_size, fd)->fd_offset = offset;
    return fd;
}

static void write_page(int fd, uint64_t offset, uint8_t byte)
{
    uint8_t page[4096];

    memset(page, byte, sizeof page);
    assert_int_equal(pwrite(fd, page, sizeof page, (off_t)offset), sizeof page);
}

/* Private anonymous memory of this process, at a multiple of the page size. */
static uint8_t *add_anonymous(uint64_t pages, uint64_t page_size)
{
    uint64_t length = pages * page_size;
    uint8_t *at = mmap(NULL, length + page_size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    assert_true(at != MAP_FAILED);
    at += page_size - (uintptr_t)at % page_size;
    (void)madvise(at, length, MADV_NOHUGEPAGE);
    add_region(&regions, pages, page_size, -1)->address = (uintptr_t)at;
    return at;
}

static void find_map(uint32_t region, uint64_t page, uint32_t max)
{
    assert_int_equal(memory_map(&memory, region, page, extents, max, &n_extents, &next), 0);
    assert_in_range(n_extents, 0, max);
}

static void assert_extent(uint32_t index, uint64_t page, uint64_t count)
{
    assert_true(index < n_extents);
    assert_int_equal(extents[index].page, page);
    assert_int_equal(extents[index].count, count);
}

static void shared_memory_is_read_by_its_fd(void **state)
{
    int fd = add_shared(10, PAGE, 3 * PAGE);

    (void)state;
    write_page(fd, 0, 9); /* before the region */
    write_page(fd, 5 * PAGE, 1);
    write_page(fd, 6 * PAGE, 2);
    open_memory();
    assert_int_equal(memory.mem_fd, -1);
    assert_int_equal(memory_read(&memory, 0, 2, 3, data), 0);
    assert_int_equal(data[0], 1);
    assert_int_equal(data[4096], 2);
    assert_int_equal(data[2 * 4096], 0);
}

static void other_memory_is_read_through_its_process(void **state)
{
    uint8_t *at = add_anonymous(10, PAGE);

    (void)state;
    at[4096] = 7;
    at[3 * 4096 - 1] = 8;
    open_memory();
    assert_int_equal(memory_read(&memory, 0, 0, 4, data), 0);
    assert_int_equal(data[4096], 7);
    assert_int_equal(data[3 * 4096 - 1], 8);
    assert_int_equal(data[0], 0);
}

/* Rule 11: never zeroes for what cannot be read. */
static void truncated_memory_is_an_error(void **state)
{
    int fd = add_shared(10, PAGE, 0);

    (void)state;
    open_memory();
    assert_int_equal(memory_read(&memory, 0, 0, 10, data), 0);
    assert_int_equal(ftruncate(fd, 5 * 4096 + 100), 0);
    assert_int_equal(memory_read(&memory, 0, 0, 5, data), 0);
    assert_int_equal(memory_read(&memory, 0, 4, 2, data), -EIO);
    assert_int_equal(memory_read(&memory, 0, 5, 1, data), -EIO);
    assert_int_equal(memory_read(&memory, 0, 9, 1, data), -EIO);
}

static void unmapped_memory_is_an_error(void **state)
{
    uint8_t *at = add_anonymous(10, PAGE);

    (void)state;
    at[0] = 1;
    open_memory();
    assert_int_equal(munmap(at + 5 * PAGE, 5 * PAGE), 0);
    assert_int_equal(memory_read(&memory, 0, 0, 5, data), 0);
    assert_int_equal(memory_read(&memory, 0, 4, 2, data), -EIO);
    assert_int_equal(memory_read(&memory, 0, 5, 1, data), -EIO);
}

static void a_process_that_is_gone_has_no_memory(void **state)
{
    (void)state;
    add_anonymous(1, PAGE);
    assert_int_equal(memory_init(&memory, &regions, 0x3fffffff), -ENOENT);
    assert_int_equal(memory.regions.n, 0);
}

static void a_file_is_mapped_by_its_holes(void **state)
{
    int fd = add_shared(100, PAGE, 8 * PAGE);

    (void)state;
    write_page(fd, 0, 1); /* before the region */
    for (uint64_t page = 20; page < 25; page++)
        write_page(fd, (8 + page) * PAGE, 1);
    write_page(fd, (8 + 99) * PAGE, 1);
    open_memory();
    find_map(0, 0, PEER_MAP_EXTENTS);
    assert_int_equal(n_extents, 2);
    assert_extent(0, 20, 5);
    assert_extent(1, 99, 1);
    assert_int_equal(next, 100);
    find_map(0, 22, PEER_MAP_EXTENTS);
    assert_extent(0, 22, 3);
    find_map(0, 25, PEER_MAP_EXTENTS);
    assert_int_equal(n_extents, 1);
}

static void what_lies_behind_a_region_is_not_its_own(void **state)
{
    int fd = add_shared(10, PAGE, 0);

    (void)state;
    assert_int_equal(ftruncate(fd, 100 * 4096), 0);
    write_page(fd, 9 * PAGE, 1);
    write_page(fd, 10 * PAGE, 1);
    write_page(fd, 50 * PAGE, 1);
    open_memory();
    find_map(0, 0, PEER_MAP_EXTENTS);
    assert_int_equal(n_extents, 1);
    assert_extent(0, 9, 1);
    assert_int_equal(next, 10);
}

static void an_empty_file_has_no_extents(void **state)
{
    (void)state;
    add_shared(100, PAGE, 0);
    open_memory();
    find_map(0, 0, PEER_MAP_EXTENTS);
    assert_int_equal(n_extents, 0);
    assert_int_equal(next, 100);
}

/* Content anywhere in a large page makes all of it content, once. */
static void large_pages_of_small_ones_are_whole(void **state)
{
    int fd = add_shared(8, HUGE_PAGE, 0);
    uint8_t *at = add_anonymous(8, HUGE_PAGE);

    (void)state;
    write_page(fd, 2 * HUGE_PAGE + 3 * PAGE, 1);
    write_page(fd, 2 * HUGE_PAGE + 9 * PAGE, 1);
    write_page(fd, 5 * HUGE_PAGE - PAGE, 1);
    at[2 * HUGE_PAGE + 3 * PAGE] = 1;
    at[2 * HUGE_PAGE + 9 * PAGE] = 1;
    at[5 * HUGE_PAGE - PAGE] = 1;
    open_memory();
    for (uint32_t region = 0; region < 2; region++) {
        find_map(region, 0, PEER_MAP_EXTENTS);
        assert_int_equal(n_extents, 2);
        assert_extent(0, 2, 1);
        assert_extent(1, 4, 1);
        assert_int_equal(next, 8);
        find_map(region, 2, 1);
        assert_extent(0, 2, 1);
        assert_true(next > 2 && next <= 4);
    }
}

static void anonymous_memory_is_mapped_by_its_pages(void **state)
{
    uint8_t *at = add_anonymous(64, PAGE);

    (void)state;
    at[3 * PAGE] = at[4 * PAGE] = at[63 * PAGE] = 1;
    open_memory();
    find_map(0, 0, PEER_MAP_EXTENTS);
    assert_int_equal(n_extents, 2);
    assert_extent(0, 3, 2);
    assert_extent(1, 63, 1);
    assert_int_equal(next, 64);
}

/* Longer than what is looked at in one go. */
static void a_long_run_is_one_extent(void **state)
{
    uint8_t *at = add_anonymous(10000, PAGE);

    (void)state;
    memset(at + 10 * PAGE, 1, 9000 * PAGE);
    open_memory();
    find_map(0, 0, PEER_MAP_EXTENTS);
    assert_int_equal(n_extents, 1);
    assert_extent(0, 10, 9000);
    assert_int_equal(next, 10000);
}

/* Every other of 200 pages, asked for in portions. */
static void assert_continued(uint32_t region, uint32_t max)
{
    uint64_t page = 0, found = 0;

    while (page < 200) {
        find_map(region, page, max);
        for (uint32_t i = 0; i < n_extents; i++, found++)
            assert_extent(i, 2 * found, 1);
        assert_true(next > page && next <= 200);
        if (n_extents > 0)
            assert_true(extents[n_extents - 1].page < next);
        page = next;
    }
    assert_int_equal(found, 100);
}

static void a_map_goes_on_where_it_was_cut(void **state)
{
    int fd = add_shared(200, PAGE, 0);
    uint8_t *at = add_anonymous(200, PAGE);

    (void)state;
    for (uint64_t page = 0; page < 200; page += 2) {
        write_page(fd, page * PAGE, 1);
        at[page * PAGE] = 1;
    }
    open_memory();
    for (uint32_t max = 1; max <= 120; max += 7) {
        assert_continued(0, max);
        assert_continued(1, max);
    }
}

static void a_private_file_is_all_content(void **state)
{
    (void)state;
    add_shared(50, PAGE, 0);
    regions.regions[0].kind = CLIENT_REGION_PRIVATE;
    open_memory();
    find_map(0, 7, 4);
    assert_int_equal(n_extents, 1);
    assert_extent(0, 7, 43);
    assert_int_equal(next, 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(shared_memory_is_read_by_its_fd, tear_down),
        cmocka_unit_test_teardown(other_memory_is_read_through_its_process, tear_down),
        cmocka_unit_test_teardown(truncated_memory_is_an_error, tear_down),
        cmocka_unit_test_teardown(unmapped_memory_is_an_error, tear_down),
        cmocka_unit_test_teardown(a_process_that_is_gone_has_no_memory, tear_down),
        cmocka_unit_test_teardown(a_file_is_mapped_by_its_holes, tear_down),
        cmocka_unit_test_teardown(what_lies_behind_a_region_is_not_its_own, tear_down),
        cmocka_unit_test_teardown(an_empty_file_has_no_extents, tear_down),
        cmocka_unit_test_teardown(large_pages_of_small_ones_are_whole, tear_down),
        cmocka_unit_test_teardown(anonymous_memory_is_mapped_by_its_pages, tear_down),
        cmocka_unit_test_teardown(a_long_run_is_one_extent, tear_down),
        cmocka_unit_test_teardown(a_map_goes_on_where_it_was_cut, tear_down),
        cmocka_unit_test_teardown(a_private_file_is_all_content, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
