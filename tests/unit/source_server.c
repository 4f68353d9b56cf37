/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An export as a destination sees it on a data channel: sealed, fenced, read.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/source/server.h"
#include "tests/unit/core_regions.h"

enum {
    PAGE = 4096,
    PAGES = 2000,
    HUGE_PAGE = 2 << 20,
    HUGE_PAGES = 3,
    ALIEN_PAGES = 200,
    HOLE_PAGE = 600,
    SESSION = 4,
    GENERATION = 2,
};

static Export *export;
static ExportChannel channel;
static int ram[2], pair[2];
static uint8_t *alien; /* read through its process, which is this one */
static pthread_t thread;
static PeerMessage message;
static uint8_t frame[PEER_HEADER_SIZE + PEER_CONTROL_MAX];
static uint8_t got[PEER_READ_MAX]; /* the pages of an item */

static void ignore(void *owner, Export *of, ExportEvent event)
{
    (void)owner;
    (void)of;
    (void)event;
}

static void *run(void *argument)
{
    (void)argument;
    server_run(export, &channel, pair[1], SESSION, GENERATION);
    shutdown(pair[1], SHUT_RDWR);
    return NULL;
}

static uint8_t byte_of(uint64_t page, size_t at)
{
    return (uint8_t)(page * 11 + at * 3 + (at >> 12) + 1);
}

/* Odd pages have content: every page is another run. */
static void fill_ram(void)
{
    static uint8_t page[PAGE];

    for (uint64_t i = 1; i < PAGES; i += 2) {
        for (size_t at = 0; at < PAGE; at++)
            page[at] = byte_of(i, at);
        assert_int_equal(pwrite(ram[0], page, PAGE, (off_t)(i * PAGE)), PAGE);
    }
    for (uint32_t i = 0; i < ALIEN_PAGES; i++)
        memset(alien + i * PAGE, (int)(i + 1), PAGE);
    for (size_t at = 0; at < HUGE_PAGE; at += PAGE) {
        for (size_t i = 0; i < PAGE; i++)
            page[i] = byte_of(1, at + i);
        assert_int_equal(pwrite(ram[1], page, PAGE, (off_t)(HUGE_PAGE + at)), PAGE);
    }
}

static int set_up(void **state)
{
    struct timeval patience = {.tv_sec = 20};
    uint8_t uuid[LIMIT_UUID] = {1};
    RegionSet regions = {0};
    int error;

    (void)state;
    ram[0] = memfd_create("ram", MFD_CLOEXEC);
    ram[1] = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(ram[0], PAGES * PAGE), 0);
    assert_int_equal(ftruncate(ram[1], HUGE_PAGES * HUGE_PAGE), 0);
    alien =
        mmap(NULL, ALIEN_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(alien != MAP_FAILED);
    fill_ram();
    add_region(&regions, PAGES, PAGE, ram[0]);
    add_region(&regions, HUGE_PAGES, HUGE_PAGE, ram[1]);
    add_region(&regions, ALIEN_PAGES, PAGE, -1)->address = (uintptr_t)alien;
    export = export_new(uuid, "guest", getpid(), &regions, ignore, NULL, &error);
    assert_non_null(export);
    channel = (ExportChannel){.kind = PEER_CHANNEL_URGENT};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return pthread_create(&thread, NULL, run, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    shutdown(pair[0], SHUT_RDWR);
    pthread_join(thread, NULL);
    close(pair[0]);
    close(pair[1]);
    close(ram[0]);
    close(ram[1]);
    munmap(alien, ALIEN_PAGES * PAGE);
    export_close(export);
    export_unref(export);
    return 0;
}

/* --- the destination ----------------------------------------------------------------------- */

static void send_bytes(size_t length)
{
    assert_int_equal(send(pair[0], frame, length, MSG_NOSIGNAL), length);
}

static void ask(const PeerReadItem *items, uint32_t n)
{
    ssize_t length = peer_read_encode(SESSION, GENERATION, items, n, frame, sizeof frame);

    assert_true(length > 0);
    send_bytes((size_t)length);
}

static PeerHeader header;
static PeerPlacement placement;

static void receive(void *bytes, size_t length)
{
    if (length > 0)
        assert_int_equal(recv(pair[0], bytes, length, MSG_WAITALL), length);
}

/* The next answer to a READ, its pages in got[], from where they belong in the item. */
static void take_answer(uint64_t page_size)
{
    uint8_t body[PEER_PLACEMENT_SIZE];

    receive(frame, PEER_HEADER_SIZE);
    assert_int_equal(peer_header_decode(frame, &header), 0);
    assert_int_equal(header.session, SESSION);
    assert_int_equal(header.generation, GENERATION);
    receive(body, sizeof body);
    assert_int_equal(peer_placement_decode(&header, body, &placement), 0);
    uint64_t length = header.length - PEER_PLACEMENT_SIZE;
    assert_int_equal(length, header.type == PEER_DATA ? placement.count * page_size : 0);
    assert_true((placement.first + placement.count) * page_size <= sizeof got ||
                header.type == PEER_ERROR);
    receive(got + placement.first * page_size, length);
    if (header.type == PEER_ZERO)
        memset(got + placement.first * page_size, 0, placement.count * page_size);
}

static void assert_error(PeerErrorCode code)
{
    take_answer(PAGE);
    assert_int_equal(header.type, PEER_ERROR);
    assert_int_equal(placement.code, code);
}

static void assert_pages(uint64_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        for (size_t at = 0; at < PAGE; at++)
            if (got[i * PAGE + at] != ((first + i) % 2 ? byte_of(first + i, at) : 0))
                fail_msg("page %llu, byte %zu", (unsigned long long)(first + i), at);
}

/* All answers to one item of region 0; how many frames they were. */
static unsigned take_item(const PeerReadItem *item)
{
    unsigned frames = 0;

    memset(got, 0xee, (size_t)item->count * PAGE);
    for (uint32_t done = 0; done < item->count; done += placement.count, frames++) {
        take_answer(PAGE);
        assert_int_not_equal(header.type, PEER_ERROR);
        assert_int_equal(header.cookie, item->cookie);
        assert_int_equal(placement.first, done);
        assert_true(placement.count > 0 && placement.count <= item->count - done);
    }
    assert_pages(item->page, item->count);
    return frames;
}

static void assert_ended(void)
{
    assert_int_equal(recv(pair[0], frame, 1, 0), 0);
}

/* --- tests --------------------------------------------------------------------------------- */

static void nothing_is_read_before_the_seal(void **state)
{
    PeerReadItem item = {.cookie = 1, .page = 1, .count = 1};

    (void)state;
    ask(&item, 1);
    assert_error(PEER_ERROR_UNSEALED);
    assert_int_equal(header.cookie, 1);
    assert_int_equal(placement.seal, 0);
    uint64_t seal = export_seal(export);
    assert_true(seal != 0);
    ask(&item, 1);
    take_answer(PAGE);
    assert_int_equal(header.type, PEER_DATA);
    assert_true(placement.seal == seal);
    assert_pages(1, 1);
}

static void a_fenced_export_is_never_read_again(void **state)
{
    PeerReadItem item = {.cookie = 1, .page = 1, .count = 1};

    (void)state;
    export_seal(export);
    export_fence(export, "the source ran again");
    ask(&item, 1);
    assert_error(PEER_ERROR_FENCED);
    export_seal(export); /* not even sealed once more */
    ask(&item, 1);
    assert_error(PEER_ERROR_FENCED);
}

static void pages_and_zeroes_come_as_they_are(void **state)
{
    PeerReadItem items[3] = {
        {.cookie = 10, .page = 1, .count = 1},
        {.cookie = 11, .page = 2, .count = 1},
        {.cookie = 12, .page = PAGES - 5, .count = 5},
    };

    (void)state;
    export_seal(export);
    ask(items, 3);
    assert_int_equal(take_item(&items[0]), 1);
    assert_int_equal(header.type, PEER_DATA);
    assert_int_equal(take_item(&items[1]), 1);
    assert_int_equal(header.type, PEER_ZERO);
    assert_int_equal(take_item(&items[2]), 5);
    assert_int_equal(atomic_load(&export->pages_read), 7);
    assert_int_equal(atomic_load(&export->zero_pages), 3);
    assert_int_equal(atomic_load(&export->urgent_reads), 3);
}

/* More runs than one system call sends, more than once, and items behind them. */
static void many_runs_in_an_item_keep_their_content(void **state)
{
    PeerReadItem items[4] = {
        {.cookie = 1, .page = 0, .count = 512},
        {.cookie = 2, .page = 3, .count = 300},
        {.cookie = 3, .page = 700, .count = 1},
        {.cookie = 4, .page = 1001, .count = 511},
    };

    (void)state;
    export_seal(export);
    for (unsigned round = 0; round < 5; round++) {
        ask(items, 4);
        for (unsigned i = 0; i < 4; i++)
            assert_int_equal(take_item(&items[i]), items[i].count);
    }
}

/* Every length around what fits one system call. */
static void every_number_of_runs_is_sent_whole(void **state)
{
    (void)state;
    export_seal(export);
    for (uint32_t count = 250; count <= 260; count++) {
        PeerReadItem items[2] = {
            {.cookie = 1, .page = 5, .count = count},
            {.cookie = 2, .page = 9, .count = 3},
        };
        ask(items, 2);
        take_item(&items[0]);
        take_item(&items[1]);
    }
}

static void a_full_batch_of_items_is_answered_in_order(void **state)
{
    PeerReadItem items[PEER_READ_ITEMS];

    (void)state;
    export_seal(export);
    for (uint32_t i = 0; i < PEER_READ_ITEMS; i++)
        items[i] = (PeerReadItem){.cookie = 100 + i, .page = 17 * i, .count = 1 + i % 40};
    ask(items, PEER_READ_ITEMS);
    for (uint32_t i = 0; i < PEER_READ_ITEMS; i++)
        take_item(&items[i]);
}

static void huge_pages_are_read_whole(void **state)
{
    PeerReadItem items[3] = {
        {.cookie = 1, .region = 1, .page = 0, .count = 1},
        {.cookie = 2, .region = 1, .page = 1, .count = 1},
        {.cookie = 3, .region = 1, .page = 1, .count = 2}, /* more than a read may ask for */
    };

    (void)state;
    export_seal(export);
    ask(items, 3);
    take_answer(HUGE_PAGE);
    assert_int_equal(header.type, PEER_ZERO);
    take_answer(HUGE_PAGE);
    assert_int_equal(header.type, PEER_DATA);
    for (size_t at = 0; at < HUGE_PAGE; at++)
        if (got[at] != byte_of(1, at))
            fail();
    assert_error(PEER_ERROR_RANGE);
}

static void what_is_out_of_range_is_refused(void **state)
{
    PeerReadItem items[] = {
        {.region = 3, .count = 1},
        {.region = UINT32_MAX, .count = 1},
        {.page = PAGES, .count = 1},
        {.page = UINT64_MAX, .count = 1},
        {.page = PAGES - 1, .count = 2},
        {.page = 0, .count = 0},
        {.page = 0, .count = UINT32_MAX},
        {.page = 0, .count = 513},
        {.page = UINT64_MAX - 1, .count = 3},
    };
    PeerReadItem good = {.cookie = 5, .page = 3, .count = 1};
    uint32_t n = sizeof items / sizeof items[0];

    (void)state;
    export_seal(export);
    ask(items, n);
    for (uint32_t i = 0; i < n; i++)
        assert_error(PEER_ERROR_RANGE);
    ask(&good, 1); /* and the connection lives */
    take_item(&good);
}

/* The next answer speaks of these pages of its item. */
static void assert_answer(PeerMessageType type, uint32_t first, uint32_t count)
{
    take_answer(PAGE);
    assert_int_equal(header.type, type);
    assert_int_equal(placement.first, first);
    assert_int_equal(placement.count, count);
    assert_int_equal(placement.code, type == PEER_ERROR ? PEER_ERROR_IO : PEER_ERROR_NONE);
}

/* Rule 11: only what cannot be read fails. */
static void memory_that_cannot_be_read_is_an_error(void **state)
{
    PeerReadItem items[2] = {{.page = 998, .count = 4}, {.page = 3, .count = 1}};

    (void)state;
    export_seal(export);
    assert_int_equal(ftruncate(ram[0], 1000 * PAGE), 0);
    ask(items, 2);
    assert_answer(PEER_ZERO, 0, 1);
    assert_answer(PEER_DATA, 1, 1);
    assert_pages(998, 2);
    assert_answer(PEER_ERROR, 2, 2);
    take_item(&items[1]);
    assert_int_equal(atomic_load(&export->pages_read), 3);
}

static void an_unreadable_page_fails_alone(void **state)
{
    PeerReadItem items[2] = {{.cookie = 1, .region = 2, .page = 0, .count = ALIEN_PAGES},
                             {.cookie = 2, .page = 3, .count = 1}};

    (void)state;
    export_seal(export);
    assert_int_equal(munmap(alien + 70 * PAGE, PAGE), 0);
    assert_int_equal(munmap(alien + 80 * PAGE, 3 * PAGE), 0);
    ask(items, 2);
    memset(got, 0xee, sizeof got);
    for (uint32_t done = 0; done < ALIEN_PAGES; done += placement.count) {
        take_answer(PAGE);
        assert_int_equal(placement.first, done);
        if (done == 70 || done == 80)
            assert_int_equal(placement.count, done == 70 ? 1 : 3);
        assert_int_equal(header.type, done == 70 || done == 80 ? PEER_ERROR : PEER_DATA);
    }
    for (uint32_t i = 0; i < ALIEN_PAGES; i++)
        if (i != 70 && (i < 80 || i > 82))
            assert_int_equal(got[i * PAGE + 5], (uint8_t)(i + 1));
    take_item(&items[1]);
    assert_int_equal(atomic_load(&export->pages_read), ALIEN_PAGES - 4 + 1);
}

/* The destination keeps every failed run on its own, and has room for so many. */
static void many_unreadable_pages_are_failed_together(void **state)
{
    PeerReadItem items[2] = {{.cookie = 1, .region = 2, .page = 0, .count = ALIEN_PAGES},
                             {.cookie = 2, .page = 3, .count = 1}};

    (void)state;
    export_seal(export);
    for (uint32_t i = 1; i < ALIEN_PAGES; i += 2)
        assert_int_equal(munmap(alien + i * PAGE, PAGE), 0);
    ask(items, 2);
    for (uint32_t i = 0; i < 14; i += 2) {
        assert_answer(PEER_DATA, i, 1);
        assert_answer(PEER_ERROR, i + 1, 1);
    }
    assert_answer(PEER_DATA, 14, 1);
    assert_answer(PEER_ERROR, 15, ALIEN_PAGES - 15);
    take_item(&items[1]);
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
    assert_int_equal(
        fallocate(ram[0], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, HOLE_PAGE * PAGE, 200 * PAGE),
        0);
    before[0] = blocks_of(ram[0]);
    before[1] = blocks_of(ram[1]);
    export_seal(export);
    ask(items, 5);
    take_item(&items[0]);
    for (unsigned i = 1; i < 3; i++) {
        take_answer(HUGE_PAGE);
        assert_int_equal(header.type, PEER_ZERO);
        assert_int_equal(header.cookie, items[i].cookie);
    }
    assert_answer(PEER_ZERO, 0, 201); /* and the even page behind it */
    for (uint32_t i = 201; i < 300; i++)
        assert_answer(i % 2 ? PEER_DATA : PEER_ZERO, i, 1);
    take_item(&items[4]);
    assert_int_equal(blocks_of(ram[0]), before[0]);
    assert_int_equal(blocks_of(ram[1]), before[1]);
}

/* A file that was cut short ends in what looks like a hole. */
static void a_cut_off_end_is_no_hole(void **state)
{
    PeerReadItem item = {.page = 1000, .count = 100};

    (void)state;
    export_seal(export);
    assert_int_equal(ftruncate(ram[0], 1000 * PAGE), 0);
    ask(&item, 1);
    assert_answer(PEER_ERROR, 0, 100);
    item.page = 999;
    ask(&item, 1);
    assert_answer(PEER_DATA, 0, 1);
    assert_answer(PEER_ERROR, 1, 99);
}

static void ask_map(uint32_t region, uint64_t page)
{
    memset(&message, 0, sizeof message);
    message.type = PEER_MAP_REQUEST;
    message.session = SESSION;
    message.generation = GENERATION;
    message.map_request.region = region;
    message.map_request.page = page;
    ssize_t length = peer_message_encode(&message, frame, sizeof frame);
    assert_true(length > 0);
    send_bytes((size_t)length);
}

static void take_map(void)
{
    receive(frame, PEER_HEADER_SIZE);
    assert_int_equal(peer_header_decode(frame, &header), 0);
    receive(frame + PEER_HEADER_SIZE, header.length);
    assert_int_equal(peer_message_decode(&header, frame + PEER_HEADER_SIZE, &message), 0);
    assert_int_equal(message.type, PEER_MAP);
}

static void the_map_is_answered(void **state)
{
    uint64_t seal = export_seal(export);
    PeerReadItem item = {.cookie = 5, .page = 3, .count = 2};

    (void)state;
    ask(&item, 1); /* mixed with reads, in order */
    ask_map(0, 10);
    take_item(&item);
    take_map();
    assert_int_equal(message.map.region, 0);
    assert_true(message.map.seal == seal);
    assert_int_equal(message.map.next, PAGES);
    assert_int_equal(message.map.n, (PAGES - 10) / 2);
    assert_int_equal(message.map.extents[0].page, 11);
    ask_map(1, 0);
    take_map();
    assert_int_equal(message.map.n, 1);
    assert_int_equal(message.map.extents[0].page, 1);
}

static void a_map_before_the_seal_ends_it(void **state)
{
    (void)state;
    ask_map(0, 0);
    assert_ended();
}

static void a_map_out_of_range_ends_it(void **state)
{
    (void)state;
    export_seal(export);
    ask_map(0, PAGES);
    assert_ended();
}

static void another_session_ends_it(void **state)
{
    PeerReadItem item = {.page = 1, .count = 1};

    (void)state;
    export_seal(export);
    assert_true(peer_read_encode(SESSION + 1, GENERATION, &item, 1, frame, sizeof frame) > 0);
    send_bytes(PEER_HEADER_SIZE + 4 + 24);
    assert_ended();
}

static void garbage_ends_it(void **state)
{
    (void)state;
    memset(frame, 0xff, PEER_HEADER_SIZE);
    send_bytes(PEER_HEADER_SIZE);
    assert_ended();
}

static void a_frame_out_of_turn_ends_it(void **state)
{
    (void)state;
    message = (PeerMessage){.type = PEER_PING, .session = SESSION, .generation = GENERATION};
    assert_true(peer_message_encode(&message, frame, sizeof frame) > 0);
    send_bytes(PEER_HEADER_SIZE);
    assert_ended();
}

static void requests_may_come_in_crumbs(void **state)
{
    PeerReadItem items[2] = {{.cookie = 1, .page = 1, .count = 2},
                             {.cookie = 2, .page = 8, .count = 1}};
    ssize_t length = peer_read_encode(SESSION, GENERATION, items, 2, frame, sizeof frame);
    uint8_t copy[200];

    (void)state;
    export_seal(export);
    memcpy(copy, frame, (size_t)length);
    for (ssize_t i = 0; i < length; i++) {
        assert_int_equal(send(pair[0], copy + i, 1, 0), 1);
        usleep(100);
    }
    take_item(&items[0]);
    take_item(&items[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_read_before_the_seal),
        TEST(a_fenced_export_is_never_read_again),
        TEST(pages_and_zeroes_come_as_they_are),
        TEST(many_runs_in_an_item_keep_their_content),
        TEST(every_number_of_runs_is_sent_whole),
        TEST(a_full_batch_of_items_is_answered_in_order),
        TEST(huge_pages_are_read_whole),
        TEST(what_is_out_of_range_is_refused),
        TEST(memory_that_cannot_be_read_is_an_error),
        TEST(an_unreadable_page_fails_alone),
        TEST(many_unreadable_pages_are_failed_together),
        TEST(holes_are_zero_and_stay_holes),
        TEST(a_cut_off_end_is_no_hole),
        TEST(the_map_is_answered),
        TEST(a_map_before_the_seal_ends_it),
        TEST(a_map_out_of_range_ends_it),
        TEST(another_session_ends_it),
        TEST(garbage_ends_it),
        TEST(a_frame_out_of_turn_ends_it),
        TEST(requests_may_come_in_crumbs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
