/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What of a source's memory cannot be read, and what is not even there.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/source_reader.h"

enum { HOLE_PAGE = 600 };

/* Rule 11: only what cannot be read fails. */
static void memory_that_cannot_be_read_is_an_error(void **state)
{
    PeerReadItem items[2] = {{.page = 998, .count = 4}, {.page = 3, .count = 1}};

    (void)state;
    export_seal(reader.export);
    assert_int_equal(ftruncate(reader.ram[0], 1000 * PAGE), 0);
    reader_ask(items, 2);
    reader_assert_answer(PEER_ZERO, 0, 1);
    reader_assert_answer(PEER_DATA, 1, 1);
    reader_assert_pages(998, 2);
    reader_assert_answer(PEER_ERROR, 2, 2);
    reader_take_item(&items[1]);
    assert_int_equal(atomic_load(&reader.export->pages_read), 3);
}

static void an_unreadable_page_fails_alone(void **state)
{
    PeerReadItem items[2] = {{.cookie = 1, .region = 2, .page = 0, .count = ALIEN_PAGES},
                             {.cookie = 2, .page = 3, .count = 1}};

    (void)state;
    export_seal(reader.export);
    assert_int_equal(munmap(reader.alien + 70 * PAGE, PAGE), 0);
    assert_int_equal(munmap(reader.alien + 80 * PAGE, 3 * PAGE), 0);
    reader_ask(items, 2);
    memset(reader.got, 0xee, sizeof reader.got);
    for (uint32_t done = 0; done < ALIEN_PAGES; done += reader.placement.count) {
        reader_take(PAGE);
        assert_int_equal(reader.placement.first, done);
        if (done == 70 || done == 80)
            assert_int_equal(reader.placement.count, done == 70 ? 1 : 3);
        assert_int_equal(reader.header.type, done == 70 || done == 80 ? PEER_ERROR : PEER_DATA);
    }
    for (uint32_t i = 0; i < ALIEN_PAGES; i++)
        if (i != 70 && (i < 80 || i > 82))
            assert_int_equal(reader.got[i * PAGE + 5], (uint8_t)(i + 1));
    reader_take_item(&items[1]);
    assert_int_equal(atomic_load(&reader.export->pages_read), ALIEN_PAGES - 4 + 1);
}

/* The destination keeps every failed run on its own, and has room for so many. */
static void many_unreadable_pages_are_failed_together(void **state)
{
    PeerReadItem items[2] = {{.cookie = 1, .region = 2, .page = 0, .count = ALIEN_PAGES},
                             {.cookie = 2, .page = 3, .count = 1}};

    (void)state;
    export_seal(reader.export);
    for (uint32_t i = 1; i < ALIEN_PAGES; i += 2)
        assert_int_equal(munmap(reader.alien + i * PAGE, PAGE), 0);
    reader_ask(items, 2);
    for (uint32_t i = 0; i < 14; i += 2) {
        reader_assert_answer(PEER_DATA, i, 1);
        reader_assert_answer(PEER_ERROR, i + 1, 1);
    }
    reader_assert_answer(PEER_DATA, 14, 1);
    reader_assert_answer(PEER_ERROR, 15, ALIEN_PAGES - 15);
    reader_take_item(&items[1]);
}

static blkcnt_t blocks_of(int fd)
{
    struct stat status;

    assert_int_equal(fstat(fd, &status), 0);
    return status.st_blocks;
}

/* Neither one by one nor in a run that is all, or partly, a hole. */
static void holes_are_zero_and_stay_holes(void **state)
{
    PeerReadItem items[] = {
        {.cookie = 1, .page = 2, .count = 1},
        {.cookie = 2, .region = 1, .page = 0, .count = 1},
        {.cookie = 3, .region = 1, .page = 2, .count = 1},
        {.cookie = 4, .page = HOLE_PAGE, .count = 300},
        {.cookie = 5, .page = PAGES - 100, .count = 100},
    };
    blkcnt_t before[2];

    (void)state;
    assert_int_equal(fallocate(reader.ram[0], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                               HOLE_PAGE * PAGE, 200 * PAGE),
                     0);
    before[0] = blocks_of(reader.ram[0]);
    before[1] = blocks_of(reader.ram[1]);
    export_seal(reader.export);
    reader_ask(items, 5);
    reader_take_item(&items[0]);
    for (unsigned i = 1; i < 3; i++) {
        reader_take(HUGE_PAGE);
        assert_int_equal(reader.header.type, PEER_ZERO);
        assert_int_equal(reader.header.cookie, items[i].cookie);
    }
    reader_assert_answer(PEER_ZERO, 0, 201); /* and the even page behind it */
    for (uint32_t i = 201; i < 300; i++)
        reader_assert_answer(i % 2 ? PEER_DATA : PEER_ZERO, i, 1);
    reader_take_item(&items[4]);
    assert_int_equal(blocks_of(reader.ram[0]), before[0]);
    assert_int_equal(blocks_of(reader.ram[1]), before[1]);
}

/* A file that was cut short ends in what looks like a hole. */
static void a_cut_off_end_is_no_hole(void **state)
{
    PeerReadItem item = {.page = 1000, .count = 100};

    (void)state;
    export_seal(reader.export);
    assert_int_equal(ftruncate(reader.ram[0], 1000 * PAGE), 0);
    reader_ask(&item, 1);
    reader_assert_answer(PEER_ERROR, 0, 100);
    item.page = 999;
    reader_ask(&item, 1);
    reader_assert_answer(PEER_DATA, 0, 1);
    reader_assert_answer(PEER_ERROR, 1, 99);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, reader_set_up, reader_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(memory_that_cannot_be_read_is_an_error),
        TEST(an_unreadable_page_fails_alone),
        TEST(many_unreadable_pages_are_failed_together),
        TEST(holes_are_zero_and_stay_holes),
        TEST(a_cut_off_end_is_no_hole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
