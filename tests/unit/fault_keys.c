/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/fault/keys.h"

#define MIB (UINT64_C(1) << 20)

enum { PAGES = 65536, HUGE_PAGES = 512 };

static Keys keys;

static int setup(void **state)
{
    static const uint64_t pages[] = {PAGES, HUGE_PAGES};
    static const uint64_t page_sizes[] = {4096, 2 << 20};

    (void)state;
    return keys_init(&keys, pages, page_sizes, 2);
}

static int teardown(void **state)
{
    (void)state;
    keys_deinit(&keys);
    return 0;
}

static PeerSpan span(uint32_t id, uint64_t page, uint64_t count)
{
    return (PeerSpan){
        .id = id,
        .page = page,
        .count = count,
        .address = (UINT64_C(7) << 40) + page * 4096,
        .rkey = 100 + id,
    };
}

/* Asked from page on, and to be asked on right behind it. */
static const char *add(uint64_t asked, PeerSpan it)
{
    return keys_add(&keys, 0, asked, &it, it.page + it.count);
}

static uint32_t find(uint64_t page, uint32_t count, uint64_t *ret_address, uint32_t *ret_rkey)
{
    *ret_address = 0;
    *ret_rkey = 0;
    return keys_find(&keys, 0, page, count, ret_address, ret_rkey);
}

static void pages_are_found_in_their_span(void **state)
{
    uint64_t address;
    uint32_t rkey;

    (void)state;
    assert_int_equal(find(0, 1, &address, &rkey), 0);
    assert_null(add(0, span(1, 10, 20)));
    assert_null(add(30, span(2, 30, 5)));
    assert_null(add(35, span(9, 100, 16384)));
    assert_int_equal(find(9, 1, &address, &rkey), 0);
    assert_int_equal(find(10, 1, &address, &rkey), 1);
    assert_int_equal(rkey, 101);
    assert_int_equal(address, (UINT64_C(7) << 40) + 10 * 4096);
    /* No longer than its span, though the next one follows. */
    assert_int_equal(find(25, 100, &address, &rkey), 5);
    assert_int_equal(address, (UINT64_C(7) << 40) + 25 * 4096);
    assert_int_equal(find(30, 100, &address, &rkey), 5);
    assert_int_equal(rkey, 102);
    assert_int_equal(find(35, 1, &address, &rkey), 0);
    assert_int_equal(find(99, 1, &address, &rkey), 0);
    assert_int_equal(find(100 + 16383, 7, &address, &rkey), 1);
    assert_int_equal(rkey, 109);
    assert_int_equal(find(100 + 16384, 1, &address, &rkey), 0);
    assert_int_equal(keys_find(&keys, 1, 10, 1, &address, &rkey), 0);
    assert_int_equal(keys.told, 3);
    assert_int_equal(keys.live, 3);
}

static void pages_count_in_their_own_size(void **state)
{
    PeerSpan it = {.id = 4, .page = 3, .count = 32, .address = 1 << 30, .rkey = 5};
    uint64_t address;
    uint32_t rkey;

    (void)state;
    assert_null(keys_add(&keys, 1, 0, &it, 40));
    assert_int_equal(keys_find(&keys, 1, 5, 1, &address, &rkey), 1);
    assert_int_equal(address, (1 << 30) + 4 * MIB);
}

static void nonsense_is_refused(void **state)
{
    PeerSpan it;
    uint64_t address;
    uint32_t rkey;

    (void)state;
    assert_null(add(100, span(5, 100, 100)));
    assert_non_null(add(200, span(6, 200, 0)));
    assert_non_null(add(300, span(6, 299, 10))); /* before where it was asked */
    assert_non_null(add(100, span(6, 199, 10))); /* both of one page */
    assert_non_null(add(50, span(6, 50, 50)));   /* back again */
    assert_non_null(add(200, span(6, PAGES, 1)));
    assert_non_null(add(200, span(6, PAGES - 1, 2)));
    assert_non_null(add(200, span(6, 300, UINT64_MAX - 200)));
    assert_non_null(add(200, span(6, 300, 16385))); /* more than a span may be */
    assert_non_null(add(200, span(5, 200, 10)));    /* the same name */
    assert_non_null(add(200, span(4, 200, 10)));
    it = span(6, 200, 10);
    assert_non_null(keys_add(&keys, 0, 200, &it, 209)); /* it would be told again */
    assert_non_null(keys_add(&keys, 0, 200, &it, PAGES + 1));
    it.address = UINT64_MAX - 4096;
    assert_non_null(keys_add(&keys, 0, 200, &it, 210));
    assert_int_equal(keys.told, 1);
    assert_int_equal(find(200, 1, &address, &rkey), 0);
    /* And what makes sense is still taken. */
    it = span(6, PAGES - 1, 1);
    assert_null(keys_add(&keys, 0, 200, &it, PAGES));
    assert_int_equal(find(PAGES - 1, 1, &address, &rkey), 1);
}

static void there_is_an_end_to_them(void **state)
{
    uint32_t id = 0;

    (void)state;
    while (id < PAGES && !add(id, span(id, id, 1)))
        id++;
    /* 256 MiB: one a MiB, and some. */
    assert_int_equal(id, 256 + 64);
}

static void closed_ones_are_not_found(void **state)
{
    KeySpan *first = &keys.regions[0].spans[0], *second = &keys.regions[0].spans[1];
    uint64_t address;
    uint32_t rkey;

    (void)state;
    assert_null(add(0, span(1, 0, 10)));
    assert_null(add(10, span(2, 10, 10)));
    keys_close(second, 77);
    assert_int_equal(second->closed_ns, 77);
    assert_int_equal(find(5, 1, &address, &rkey), 1);
    assert_int_equal(find(15, 1, &address, &rkey), 0);
    keys_done(&keys, 0, second);
    assert_int_equal(keys.regions[0].oldest, 0);
    assert_int_equal(keys.live, 1);
    keys_close(first, 78);
    keys_done(&keys, 0, first);
    assert_int_equal(keys.regions[0].oldest, 2);
    assert_int_equal(keys.live, 0);
    assert_int_equal(keys.told, 2);
}

static void a_new_connection_knows_none(void **state)
{
    uint64_t address;
    uint32_t rkey;

    (void)state;
    assert_null(add(0, span(8, 0, 10)));
    keys_close(&keys.regions[0].spans[0], 1);
    keys_forget(&keys);
    assert_int_equal(find(0, 1, &address, &rkey), 0);
    assert_int_equal(keys.told, 0);
    /* Names begin anew, and nothing of the old one is left. */
    assert_null(add(0, span(1, 0, 10)));
    assert_int_equal(find(0, 20, &address, &rkey), 10);
    assert_int_equal(rkey, 101);
}

static void an_import_without_them_finds_none(void **state)
{
    static const Keys none;
    uint64_t address;
    uint32_t rkey;

    (void)state;
    assert_int_equal(keys_find(&none, 0, 0, 1, &address, &rkey), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pages_are_found_in_their_span, setup, teardown),
        cmocka_unit_test_setup_teardown(pages_count_in_their_own_size, setup, teardown),
        cmocka_unit_test_setup_teardown(nonsense_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(there_is_an_end_to_them, setup, teardown),
        cmocka_unit_test_setup_teardown(closed_ones_are_not_found, setup, teardown),
        cmocka_unit_test_setup_teardown(a_new_connection_knows_none, setup, teardown),
        cmocka_unit_test(an_import_without_them_finds_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
