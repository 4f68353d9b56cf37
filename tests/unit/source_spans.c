/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a destination may read by itself: how memory is split into spans, what of it is told as zero, how
 * much is pinned.  Without a device: what pins only counts.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/source/spans.h"
#include "tests/unit/core_regions.h"

#define PAGE  UINT64_C(4096)
#define MIB   (UINT64_C(1) << 20)
#define PAGES (200 * MIB / PAGE)
#define HUGE  (2 * MIB)

enum { SMALL = 0, LARGE, ALIEN, VAST_ONE }; /* the regions */
enum { VAST = SPANS_MOST + 1 };

static struct {
    uint64_t most, used, peak;
    unsigned pins, pinned;
    int error; /* of the next pin; 0: it works */
} device;

static Memory memory;
static Spans *spans;
static int file, large_file, vast_file;
static uint8_t *scratch;
static PeerMessage keys;

static uint64_t room(void *owner)
{
    assert_ptr_equal(owner, &device);
    return device.most - device.used;
}

typedef struct Pinned {
    size_t length;
} Pinned;

static void *pin(void *owner, void *start, size_t length, uint32_t *ret_rkey, int *ret_error)
{
    Pinned *pinned;

    assert_ptr_equal(owner, &device);
    assert_int_equal((uintptr_t)start % PAGE, 0);
    *ret_error = device.error ? device.error : length > device.most - device.used ? -EDQUOT : 0;
    if (*ret_error)
        return NULL;
    pinned = malloc(sizeof *pinned);
    assert_non_null(pinned);
    pinned->length = length;
    device.used += length;
    device.peak = device.peak > device.used ? device.peak : device.used;
    device.pinned++;
    *ret_rkey = 1000 + device.pins++;
    return pinned;
}

static void unpin(void *owner, void *of, size_t length)
{
    Pinned *pinned = of;

    assert_ptr_equal(owner, &device);
    assert_int_equal(pinned->length, length);
    device.used -= pinned->length;
    device.pinned--;
    free(pinned);
}

static int set_up(void **state)
{
    const SpanPins pins = {.owner = &device, .room = room, .pin = pin, .unpin = unpin};
    RegionSet regions = {0};

    (void)state;
    memset(&device, 0, sizeof device);
    device.most = UINT64_C(1) << 40;
    file = memfd_create("ram", MFD_CLOEXEC);
    large_file = memfd_create("ram", MFD_CLOEXEC);
    vast_file = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(file, (off_t)(PAGES * PAGE)), 0);
    assert_int_equal(ftruncate(large_file, (off_t)(16 * HUGE)), 0);
    add_region(&regions, PAGES, PAGE, file);
    add_region(&regions, 16, HUGE, large_file);
    add_region(&regions, 16, PAGE, -1)->address = (uintptr_t)&memory;
    add_region(&regions, VAST * 2 * HUGE / PAGE, PAGE, vast_file);
    assert_int_equal(memory_init(&memory, &regions, getpid()), 0);
    scratch = malloc(SCAN_PIECE);
    spans = spans_new(&memory, &pins);
    return !scratch || !spans;
}

static int tear_down(void **state)
{
    (void)state;
    spans_free(spans);
    assert_int_equal(device.pinned, 0);
    assert_int_equal(device.used, 0);
    memory_deinit(&memory);
    free(scratch);
    close(file);
    close(large_file);
    close(vast_file);
    return 0;
}

/* Pages of the first region, each with a word of its own, at its end. */
static void fill(uint64_t page, uint64_t count)
{
    for (uint64_t i = page; i < page + count; i++) {
        uint64_t word = i + 1;
        assert_int_equal(pwrite(file, &word, sizeof word, (off_t)((i + 1) * PAGE - sizeof word)),
                         8);
    }
}

/* Pages that were written, and are zero. */
static void clear(uint64_t page, uint64_t count)
{
    static const uint8_t zeroes[PAGE];

    for (uint64_t i = page; i < page + count; i++)
        assert_int_equal(pwrite(file, zeroes, PAGE, (off_t)(i * PAGE)), PAGE);
}

static void find(uint32_t region, uint64_t page)
{
    memset(&keys, 0xee, sizeof keys);
    assert_int_equal(spans_find(spans, region, page, scratch, &keys), 0);
    assert_int_equal(keys.type, PEER_KEYS);
    assert_int_equal(keys.keys.region, region);
}

static void assert_span(uint64_t page, uint64_t count, uint64_t next, uint32_t n)
{
    assert_int_equal(keys.keys.state, PEER_KEYS_SPAN);
    assert_int_equal(keys.keys.span.page, page);
    assert_int_equal(keys.keys.span.count, count);
    assert_int_equal(keys.keys.next, next);
    assert_int_equal(keys.keys.n, n);
}

static void assert_zeroes(uint32_t number, uint64_t page, uint64_t count)
{
    assert_int_equal(keys.keys.zeroes[number].page, page);
    assert_int_equal(keys.keys.zeroes[number].count, count);
}

static void assert_state(PeerKeysState state, uint64_t next)
{
    assert_int_equal(keys.keys.state, state);
    assert_int_equal(keys.keys.next, next);
}

/* --- tests --------------------------------------------------------------------------------- */

static void a_span_is_what_has_content(void **state)
{
    (void)state;
    fill(1000, 10);
    find(SMALL, 0);
    assert_span(1000, 10, keys.keys.next, 0);
    assert_true(keys.keys.next >= 1010);
    assert_int_equal(keys.keys.span.rkey, 1000);
    /* The address is that of the memory itself. */
    assert_int_equal(*(uint64_t *)(uintptr_t)(keys.keys.span.address + PAGE - 8), 1001);
    assert_int_equal(device.used, 10 * PAGE);
    find(SMALL, keys.keys.next);
    assert_state(PEER_KEYS_END, PAGES);
}

static void memory_without_content_has_no_span(void **state)
{
    (void)state;
    find(SMALL, 17);
    assert_state(PEER_KEYS_END, PAGES);
    assert_int_equal(device.pins, 0);
}

static void few_zeroes_are_listed_and_many_split(void **state)
{
    (void)state;
    fill(0, 1);
    clear(1, 1);
    fill(2, 1);    /* behind it a hole of 511 pages */
    fill(514, 1);  /* behind it one of 512, 2 MiB */
    fill(1027, 1); /* behind it 512 written zeroes */
    clear(1028, 512);
    fill(1540, 1);
    find(SMALL, 0);
    assert_span(0, 515, 1027, 2);
    assert_zeroes(0, 1, 1);
    assert_zeroes(1, 3, 511);
    assert_int_equal(keys.keys.span.id, 1);
    find(SMALL, keys.keys.next);
    assert_span(1027, 1, 1540, 0);
    assert_int_equal(keys.keys.span.id, 2);
    find(SMALL, keys.keys.next);
    assert_span(1540, 1, keys.keys.next, 0);
    assert_int_equal(device.used, 517 * PAGE);
}

static void a_span_ends_after_64_mib(void **state)
{
    const uint64_t most = PEER_SPAN_MAX / PAGE;

    (void)state;
    fill(5, most + 10);
    find(SMALL, 0);
    assert_span(5, most, most + 5, 0);
    find(SMALL, most + 5);
    assert_span(most + 5, 10, keys.keys.next, 0);
}

static void a_span_ends_when_its_list_is_full(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 2 * PEER_MAP_EXTENTS + 100; i += 2)
        fill(i, 1);
    find(SMALL, 0);
    assert_span(0, 2 * PEER_MAP_EXTENTS + 1, 2 * PEER_MAP_EXTENTS + 2, PEER_MAP_EXTENTS);
    assert_zeroes(PEER_MAP_EXTENTS - 1, 2 * PEER_MAP_EXTENTS - 1, 1);
    find(SMALL, keys.keys.next);
    assert_span(2 * PEER_MAP_EXTENTS + 2, 97, keys.keys.next, 48);
}

/* The work of one request is bounded even where nothing is found. */
static void zeroes_alone_are_told_64_mib_at_a_time(void **state)
{
    (void)state;
    clear(0, 20000);
    fill(20000, 1);
    find(SMALL, 0);
    assert_state(PEER_KEYS_END, SCAN_MOST / PAGE);
    assert_int_equal(device.pins, 0);
    find(SMALL, keys.keys.next);
    assert_span(20000, 1, keys.keys.next, 0);
}

static void large_pages_split_at_zeroes(void **state)
{
    (void)state;
    assert_int_equal(pwrite(large_file, "x", 1, (off_t)(3 * HUGE)), 1);
    assert_int_equal(pwrite(large_file, "x", 1, (off_t)(5 * HUGE - 1)), 1);
    assert_int_equal(pwrite(large_file, "x", 1, (off_t)(6 * HUGE)), 1);
    find(LARGE, 0);
    assert_span(3, 2, 6, 0);
    assert_int_equal(device.used, 2 * HUGE);
    find(LARGE, 6);
    assert_span(6, 1, keys.keys.next, 0);
    find(LARGE, 7);
    assert_state(PEER_KEYS_END, 16);
}

static void no_more_is_pinned_than_may_be(void **state)
{
    uint32_t id;

    (void)state;
    device.most = 5 * MIB;
    fill(0, 2000);
    find(SMALL, 0);
    assert_span(0, 1280, 1280, 0);
    id = keys.keys.span.id;
    find(SMALL, 1280);
    assert_state(PEER_KEYS_FULL, 1280);
    assert_int_equal(spans_retire(spans, id), 0);
    assert_int_equal(device.used, 0);
    assert_int_equal(spans_retire(spans, id), -ENOENT);
    find(SMALL, 1280);
    assert_span(1280, 720, keys.keys.next, 0);
    assert_int_equal(keys.keys.span.id, id + 1);
    assert_true(device.peak <= device.most);
}

/* What is left over is not given away in crumbs, unless there is no more than a crumb to give. */
static void a_little_room_is_none(void **state)
{
    (void)state;
    device.most = 2 * MIB - PAGE;
    fill(0, 100);
    fill(PAGES - 3, 3);
    find(SMALL, 0);
    assert_state(PEER_KEYS_FULL, 0);
    find(SMALL, PAGES - 4);
    assert_span(PAGES - 3, 3, PAGES, 0);
}

static void somebody_else_may_be_quicker(void **state)
{
    (void)state;
    fill(0, 10);
    device.error = -EDQUOT;
    find(SMALL, 0);
    assert_state(PEER_KEYS_FULL, 0);
}

static void what_cannot_be_pinned_is_read_otherwise(void **state)
{
    (void)state;
    fill(0, 10);
    fill(1000, 10);
    device.error = -ENOMEM; /* the host's limit, and there is nothing to wait for */
    find(SMALL, 0);
    assert_state(PEER_KEYS_NONE, PAGES);
    device.error = 0;
    find(SMALL, 0);
    assert_span(0, 10, keys.keys.next, 0);
    device.error = -ENOMEM;
    find(SMALL, 1000);
    assert_state(PEER_KEYS_FULL, 1000);
    device.error = -EFAULT;
    find(SMALL, 1000);
    assert_state(PEER_KEYS_NONE, PAGES);
    assert_int_equal(device.pinned, 1);
}

static void only_shared_memory_has_spans(void **state)
{
    (void)state;
    find(ALIEN, 3);
    assert_state(PEER_KEYS_NONE, 16);
}

/* Its pages are not zero but gone (rule 11). */
static void a_truncated_file_has_no_spans(void **state)
{
    (void)state;
    fill(0, 10);
    assert_int_equal(ftruncate(file, (off_t)((PAGES - 1) * PAGE)), 0);
    find(SMALL, 0);
    assert_state(PEER_KEYS_NONE, PAGES);
    find(SMALL, 100);
    assert_state(PEER_KEYS_NONE, PAGES);
    assert_int_equal(device.pins, 0);
}

/* Each a page of a file that is large, and empty but for those. */
static void there_are_only_so_many_spans(void **state)
{
    const uint64_t step = 2 * HUGE;

    (void)state;
    assert_int_equal(ftruncate(vast_file, (off_t)(VAST * step)), 0);
    for (uint64_t i = 0; i < VAST; i++)
        assert_int_equal(pwrite(vast_file, "x", 1, (off_t)(i * step)), 1);
    for (unsigned i = 0; i < SPANS_MOST; i++) {
        find(VAST_ONE, i * step / PAGE);
        assert_int_equal(keys.keys.state, PEER_KEYS_SPAN);
        assert_int_equal(keys.keys.span.count, 1);
        assert_int_equal(keys.keys.span.id, i + 1);
    }
    find(VAST_ONE, SPANS_MOST * step / PAGE);
    assert_state(PEER_KEYS_FULL, SPANS_MOST * step / PAGE);
    assert_int_equal(spans_retire(spans, 2000), 0);
    find(VAST_ONE, SPANS_MOST * step / PAGE);
    assert_int_equal(keys.keys.span.id, SPANS_MOST + 1);
    assert_int_equal(spans_retire(spans, SPANS_MOST + 1), 0);
    assert_int_equal(spans_retire(spans, 1), 0);
    assert_int_equal(spans_retire(spans, 2000), -ENOENT);
}

static void assert_not_told_again(uint64_t page)
{
    unsigned pins = device.pins;

    assert_int_equal(spans_find(spans, SMALL, page, scratch, &keys), -EPROTO);
    assert_int_equal(device.pins, pins);
}

/* Else one page would be enough to have all that may be pinned, pinned. */
static void what_has_a_key_gets_no_other(void **state)
{
    uint32_t id;

    (void)state;
    fill(100, 50);
    fill(150, 20);
    device.most = 2 * MIB;
    find(SMALL, 100);
    assert_span(100, 70, keys.keys.next, 0);
    device.most = 100 * MIB;
    id = keys.keys.span.id;
    assert_not_told_again(100);
    assert_not_told_again(0);   /* with what is before it */
    assert_not_told_again(169); /* its last page */
    fill(40, 30);
    assert_not_told_again(50); /* both ends beyond its own */
    assert_int_equal(device.pinned, 1);
    find(SMALL, 170); /* nothing of it, nor of anything else */
    assert_state(PEER_KEYS_END, PAGES);
    assert_int_equal(pwrite(large_file, "x", 1, 0), 1);
    find(LARGE, 0); /* the same pages, of another region */
    assert_int_equal(keys.keys.state, PEER_KEYS_SPAN);
    assert_int_equal(spans_retire(spans, id), 0);
    find(SMALL, 100);
    assert_span(100, 70, keys.keys.next, 0);
}

static void after_the_end_nothing_is_pinned(void **state)
{
    (void)state;
    fill(0, 10);
    fill(1000, 10);
    find(SMALL, 0);
    find(SMALL, 1000);
    assert_int_equal(device.pinned, 2);
    spans_end(spans);
    assert_int_equal(device.pinned, 0);
    assert_int_equal(spans_find(spans, SMALL, 0, scratch, &keys), -ECANCELED);
    assert_int_equal(spans_retire(spans, 1), 0); /* it may have been under way */
    assert_int_equal(device.pinned, 0);
}

/* Every page is either zero, and told so, or in a span. */
static void all_content_is_in_spans_and_only_that(void **state)
{
    static uint8_t has[PAGES], told[PAGES];
    uint64_t at = 0;

    (void)state;
    srandom(7);
    for (uint64_t i = 0; i < PAGES;) {
        uint64_t count = 1 + (uint64_t)random() % (random() % 8 ? 30 : 3000);
        long kind = random() % 3;

        for (uint64_t end = i + count; i < end && i < PAGES; i++) {
            has[i] = kind == 0;
            if (kind == 0)
                fill(i, 1);
            else if (kind == 1)
                clear(i, 1);
        }
    }
    while (at < PAGES) {
        find(SMALL, at);
        assert_true(keys.keys.next > at);
        at = keys.keys.next;
        if (keys.keys.state == PEER_KEYS_END)
            continue;
        assert_int_equal(keys.keys.state, PEER_KEYS_SPAN);
        assert_true(keys.keys.span.count <= PEER_SPAN_MAX / PAGE);
        memset(told + keys.keys.span.page, 1, keys.keys.span.count);
        for (uint32_t i = 0; i < keys.keys.n; i++)
            memset(told + keys.keys.zeroes[i].page, 0, keys.keys.zeroes[i].count);
    }
    assert_int_equal(at, PAGES);
    assert_memory_equal(told, has, PAGES);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_span_is_what_has_content),
        TEST(memory_without_content_has_no_span),
        TEST(few_zeroes_are_listed_and_many_split),
        TEST(a_span_ends_after_64_mib),
        TEST(a_span_ends_when_its_list_is_full),
        TEST(zeroes_alone_are_told_64_mib_at_a_time),
        TEST(large_pages_split_at_zeroes),
        TEST(no_more_is_pinned_than_may_be),
        TEST(a_little_room_is_none),
        TEST(somebody_else_may_be_quicker),
        TEST(what_cannot_be_pinned_is_read_otherwise),
        TEST(only_shared_memory_has_spans),
        TEST(a_truncated_file_has_no_spans),
        TEST(there_are_only_so_many_spans),
        TEST(what_has_a_key_gets_no_other),
        TEST(after_the_end_nothing_is_pinned),
        TEST(all_content_is_in_spans_and_only_that),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
