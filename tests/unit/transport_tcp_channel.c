/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The destination's end of a data channel against a scripted source.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/transport/tcp_channel.h"

enum {
    PAGE = 4096,
    HUGE_PAGE = 2 << 20,
    PAGES = 256,
    SEAL = 77,
    IN_SIZE = 2 * HUGE_PAGE,
    SOURCE_REGION = 5, /* the source's number of region 0; region 1 is one more */
};

static const uint64_t page_sizes[] = {PAGE, HUGE_PAGE};
static const uint32_t wire_regions[] = {SOURCE_REGION, SOURCE_REGION + 1};

static Ring ring;
static TcpChannel channel;
static int source = -1;
static uint32_t session;

/* What the sink was told. */
static unsigned seen[2][PAGES], zeroes, failures, maps, downs;
static bool retry_failed;
static PeerErrorCode last_code;
static char last_reason[200];

static uint8_t byte_of(uint32_t region, uint64_t page, size_t at)
{
    return (uint8_t)(page * 7 + region + at * 13 + (at >> 12) + 1);
}

static void check_page(uint32_t region, uint64_t page, const uint8_t *data)
{
    size_t step = page_sizes[region] > PAGE ? 509 : 1;

    for (size_t at = 0; at < page_sizes[region]; at += step)
        if (data[at] != byte_of(region, page, at))
            fail_msg("page %llu of region %u is torn", (unsigned long long)page, region);
}

/* Where pages of region 0 land, if they are to: a memfd and our mapping of it. */
static int landing_fd = -1;
static uint8_t *landing;
static unsigned landed;

static bool on_place(void *owner, const Fetch *fetch, uint32_t first, uint32_t count,
                     FetchPlace *ret_place)
{
    (void)owner;
    assert_int_equal(first, fetch->done);
    assert_true(first + count <= fetch->count);
    if (!landing || fetch->region != 0)
        return false;
    *ret_place = (FetchPlace){
        .memory = landing + (fetch->page + first) * PAGE,
        .fd = landing_fd,
        .offset = (fetch->page + first) * PAGE,
    };
    return true;
}

static void on_pages(void *owner, Fetch *fetch, uint32_t first, uint32_t count,
                     FetchContent content, const void *data)
{
    const uint8_t *at = content == FETCH_LANDED ? landing + (fetch->page + first) * PAGE : data;

    assert_int_equal(content == FETCH_DATA, data != NULL);
    landed += content == FETCH_LANDED ? count : 0;
    (void)owner;
    assert_int_equal(first, fetch->done);
    assert_true(first + count <= fetch->count);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t page = fetch->page + first + i;
        assert_true(page < PAGES);
        seen[fetch->region][page]++;
        zeroes += content == FETCH_ZERO;
        if (at)
            check_page(fetch->region, page, at + i * page_sizes[fetch->region]);
    }
}

static bool on_failed(void *owner, Fetch *fetch, PeerErrorCode code)
{
    (void)owner;
    (void)fetch;
    failures++;
    last_code = code;
    return retry_failed;
}

static void on_map(void *owner, uint32_t region, const PeerMessage *map)
{
    (void)owner;
    assert_int_equal(region, 0);
    assert_int_equal(map->map.next, 100);
    maps++;
}

static void on_down(void *owner, const char *reason)
{
    (void)owner;
    downs++;
    snprintf(last_reason, sizeof last_reason, "%s", reason);
}

static const FetchSink sink = {
    .pages = on_pages,
    .place = on_place,
    .failed = on_failed,
    .map = on_map,
    .down = on_down,
};

static void turn(void)
{
    tcp_channel_flush(&channel);
    assert_int_equal(ring_wait(&ring, 50), 0);
}

static void turn_until(const unsigned *counter, unsigned value)
{
    for (int i = 0; i < 200 && *counter < value; i++)
        turn();
    assert_int_equal(*counter, value);
}

static void connect_source(void)
{
    int pair[2];

    if (source >= 0)
        close(source);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    source = pair[1];
    tcp_channel_attach(&channel, pair[0], ++session, 1);
}

static void on_woken(void *owner)
{
    (void)owner;
}

static int set_up(void **state)
{
    (void)state;
    memset(seen, 0, sizeof seen);
    zeroes = failures = maps = downs = 0;
    retry_failed = true;
    assert_int_equal(ring_init(&ring, on_woken, NULL), 0);
    assert_int_equal(ring_start(&ring, 64), 0);
    assert_int_equal(
        tcp_channel_init(&channel, &ring, &sink, NULL, page_sizes, wire_regions, 2, IN_SIZE, true),
        0);
    channel.seal = SEAL;
    connect_source();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tcp_channel_drop(&channel, "end of test");
    while (channel.receiving.busy || channel.sending.busy)
        turn();
    tcp_channel_deinit(&channel);
    ring_stop(&ring);
    ring_deinit(&ring);
    close(source);
    source = -1;
    return 0;
}

/* --- the source ---------------------------------------------------------------------------- */

/* All bytes; the channel takes them meanwhile. */
static void write_all(const uint8_t *bytes, size_t length)
{
    while (length > 0) {
        ssize_t n = send(source, bytes, length, MSG_NOSIGNAL);
        if (n < 0) {
            assert_int_equal(errno, EAGAIN);
            turn();
            continue;
        }
        bytes += n;
        length -= (size_t)n;
    }
}

static PeerMessage request;

/* The next frame that the channel sent. */
static void read_request(PeerMessageType type)
{
    static uint8_t frame[PEER_HEADER_SIZE + PEER_CONTROL_MAX];
    PeerHeader header;

    for (int i = 0; i < 100 && recv(source, frame, 1, MSG_PEEK) < 1; i++)
        turn();
    assert_int_equal(recv(source, frame, PEER_HEADER_SIZE, 0), PEER_HEADER_SIZE);
    assert_int_equal(peer_header_decode(frame, &header), 0);
    assert_int_equal(recv(source, frame + PEER_HEADER_SIZE, header.length, 0), header.length);
    assert_int_equal(peer_message_decode(&header, frame + PEER_HEADER_SIZE, &request), 0);
    assert_int_equal(request.type, type);
    assert_int_equal(request.session, session);
    assert_int_equal(request.generation, 1);
}

static PeerMessage reply_to(PeerMessageType type, const PeerReadItem *item, uint32_t first,
                            uint32_t count)
{
    return (PeerMessage){
        .type = type,
        .session = session,
        .generation = 1,
        .cookie = item->cookie,
        .placement = {.seal = SEAL,
                      .first = first,
                      .count = count,
                      .code = type == PEER_ERROR ? PEER_ERROR_IO : PEER_ERROR_NONE},
    };
}

/* A frame with its pages at bytes; its length. */
static size_t put_reply(uint8_t *bytes, const PeerMessage *reply, const PeerReadItem *item)
{
    uint32_t region = item->region - SOURCE_REGION;
    size_t page_size = page_sizes[region];
    size_t length = reply->type == PEER_DATA ? reply->placement.count * page_size : 0;
    ssize_t head = peer_data_encode(reply, (uint32_t)length, bytes, 64);

    assert_true(head > 0);
    for (size_t i = 0; i < length; i++)
        bytes[(size_t)head + i] =
            byte_of(region, item->page + reply->placement.first + i / page_size, i % page_size);
    return (size_t)head + length;
}

static uint8_t bytes[3 * HUGE_PAGE];

static void reply(PeerMessageType type, const PeerReadItem *item, uint32_t first, uint32_t count)
{
    PeerMessage message = reply_to(type, item, first, count);

    write_all(bytes, put_reply(bytes, &message, item));
}

static void assert_seen_once(uint32_t region, uint64_t first, uint64_t count)
{
    for (uint64_t page = 0; page < PAGES; page++)
        assert_int_equal(seen[region][page], page >= first && page < first + count);
}

/* --- tests --------------------------------------------------------------------------------- */

static void requests_go_out_in_one_batch(void **state)
{
    (void)state;
    tcp_channel_fetch(&channel, 0, 3, 1);
    tcp_channel_fetch(&channel, 0, 100, 16);
    tcp_channel_fetch(&channel, 1, 2, 1);
    read_request(PEER_READ);
    assert_int_equal(request.read.n, 3);
    assert_int_equal(request.read.items[1].region, SOURCE_REGION);
    assert_int_equal(request.read.items[1].page, 100);
    assert_int_equal(request.read.items[1].count, 16);
    assert_int_equal(request.read.items[2].region, SOURCE_REGION + 1);
    assert_int_equal(channel.used, 3);
}

static void slots_are_bounded_and_come_back(void **state)
{
    (void)state;
    for (unsigned i = 0; i < TCP_CHANNEL_SLOTS; i++) {
        assert_true(tcp_channel_has_room(&channel));
        tcp_channel_fetch(&channel, 0, i, 1);
    }
    assert_false(tcp_channel_has_room(&channel));
    read_request(PEER_READ);
    assert_int_equal(request.read.n, TCP_CHANNEL_SLOTS);
    for (unsigned i = TCP_CHANNEL_SLOTS; i-- > 0;) /* in any order */
        reply(i % 3 ? PEER_DATA : PEER_ZERO, &request.read.items[i], 0, 1);
    for (int i = 0; i < 100 && channel.used > 0; i++)
        turn();
    assert_int_equal(channel.used, 0);
    assert_seen_once(0, 0, TCP_CHANNEL_SLOTS);
    assert_int_equal(zeroes, (TCP_CHANNEL_SLOTS + 2) / 3);
}

/* Two pages, one zero page, one page: as one item's answer. */
static size_t put_mixed(const PeerReadItem *item)
{
    PeerMessage a = reply_to(PEER_DATA, item, 0, 2);
    PeerMessage b = reply_to(PEER_ZERO, item, 2, 1);
    PeerMessage c = reply_to(PEER_DATA, item, 3, 1);
    size_t length = put_reply(bytes, &a, item);

    length += put_reply(bytes + length, &b, item);
    return length + put_reply(bytes + length, &c, item);
}

static void answers_may_be_split_anywhere(void **state)
{
    size_t length = PAGE;

    (void)state;
    for (size_t split = 1; split < length; split += 2) {
        memset(seen, 0, sizeof seen);
        tcp_channel_fetch(&channel, 0, split % 200, 4);
        read_request(PEER_READ);
        length = put_mixed(&request.read.items[0]);
        write_all(bytes, split);
        turn();
        write_all(bytes + split, length - split);
        for (int i = 0; i < 100 && channel.used > 0; i++)
            turn();
        assert_seen_once(0, split % 200, 4);
    }
    assert_int_equal(downs, 0);
}

static void answers_may_come_in_crumbs(void **state)
{
    size_t length;

    (void)state;
    for (size_t crumb = 1; crumb < 60; crumb += 2) {
        memset(seen, 0, sizeof seen);
        tcp_channel_fetch(&channel, 0, 9, 4);
        read_request(PEER_READ);
        length = put_mixed(&request.read.items[0]);
        for (size_t at = 0; at < length; at += crumb) {
            write_all(bytes + at, length - at < crumb ? length - at : crumb);
            if (at % 16 == 0 || crumb > 20)
                turn();
        }
        for (int i = 0; i < 100 && channel.used > 0; i++)
            turn();
        assert_seen_once(0, 9, 4);
    }
}

static void make_landing(void)
{
    landing_fd = memfd_create("landing", MFD_CLOEXEC);
    assert_int_equal(ftruncate(landing_fd, (off_t)PAGES * PAGE), 0);
    landing = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, landing_fd, 0);
    assert_ptr_not_equal(landing, MAP_FAILED);
}

static void drop_landing(void)
{
    munmap(landing, PAGES * PAGE);
    close(landing_fd);
    landing = NULL;
    landing_fd = -1;
    landed = 0;
}

/* Pages 0-7, then 8 zero pages, then 16-31. */
static size_t put_landing(const PeerReadItem *item)
{
    PeerMessage a = reply_to(PEER_DATA, item, 0, 8);
    PeerMessage b = reply_to(PEER_ZERO, item, 8, 8);
    PeerMessage c = reply_to(PEER_DATA, item, 16, 16);
    size_t length = put_reply(bytes, &a, item);

    length += put_reply(bytes + length, &b, item);
    return length + put_reply(bytes + length, &c, item);
}

static void long_answers_land_in_place(void **state)
{
    static const size_t splits[] = {1,    24,    47,    48,    49,    4143,  4144,
                                    4145, 32815, 32816, 32817, 32864, 32912, 40000};
    size_t length;

    (void)state;
    make_landing();
    for (unsigned i = 0; i < sizeof splits / sizeof splits[0]; i++) {
        memset(seen, 0, sizeof seen);
        memset(landing, 0xa5, PAGES * PAGE);
        landed = 0;
        tcp_channel_fetch(&channel, 0, i, 32);
        read_request(PEER_READ);
        length = put_landing(&request.read.items[0]);
        write_all(bytes, splits[i]);
        turn();
        write_all(bytes + splits[i], length - splits[i]);
        for (int k = 0; k < 100 && channel.used > 0; k++)
            turn();
        assert_seen_once(0, i, 32);
        assert_int_equal(landed, 24);
        /* Neither before, nor where zeroes were told, nor behind. */
        assert_true(i == 0 || landing[i * PAGE - 1] == 0xa5);
        for (uint64_t at = (i + 8) * PAGE; at < (i + 16) * PAGE; at++)
            assert_int_equal(landing[at], 0xa5);
        assert_int_equal(landing[(i + 32) * PAGE], 0xa5);
    }
    assert_int_equal(downs, 0);
    drop_landing();
}

/* What was received of a page counts for nothing, but that it spoiled the place. */
static void a_landing_that_is_cut_short_is_told(void **state)
{
    PeerMessage message;
    size_t length;

    (void)state;
    make_landing();
    tcp_channel_fetch(&channel, 0, 40, 16);
    read_request(PEER_READ);
    message = reply_to(PEER_DATA, &request.read.items[0], 0, 16);
    length = put_reply(bytes, &message, &request.read.items[0]);
    write_all(bytes, length - 10 * PAGE - 100);
    for (int k = 0; k < 20; k++)
        turn();
    close(source);
    source = -1;
    turn_until(&downs, 1);
    assert_seen_once(0, 40, 5);
    connect_source();
    read_request(PEER_READ);
    assert_int_equal(request.read.items[0].page, 45);
    assert_int_equal(request.read.items[0].count, 11);
    assert_true(channel.slots[request.read.items[0].cookie].spoiled);
    reply(PEER_DATA, &request.read.items[0], 0, 11);
    for (int k = 0; k < 100 && channel.used > 0; k++)
        turn();
    assert_seen_once(0, 40, 16);
    drop_landing();
}

/* One page of a run cannot be read: only that one is asked again. */
static void a_bad_page_fails_alone(void **state)
{
    PeerReadItem item;

    (void)state;
    retry_failed = true;
    tcp_channel_fetch(&channel, 0, 60, 8);
    read_request(PEER_READ);
    item = request.read.items[0];
    reply(PEER_DATA, &item, 0, 3);
    reply(PEER_ERROR, &item, 3, 1);
    reply(PEER_DATA, &item, 4, 4);
    turn_until(&failures, 1);
    for (int k = 0; k < 20 && channel.used > 1; k++)
        turn();
    read_request(PEER_READ);
    assert_int_equal(request.read.n, 1);
    assert_int_equal(request.read.items[0].page, 63);
    assert_int_equal(request.read.items[0].count, 1);
    reply(PEER_DATA, &request.read.items[0], 0, 1);
    for (int k = 0; k < 100 && channel.used > 0; k++)
        turn();
    assert_seen_once(0, 60, 8);
    assert_int_equal(downs, 0);
}

static void huge_pages_fit_the_buffer(void **state)
{
    (void)state;
    for (uint64_t page = 0; page < 6; page++) {
        tcp_channel_fetch(&channel, 1, page, 1);
        tcp_channel_fetch(&channel, 0, page, 1);
    }
    read_request(PEER_READ);
    for (uint32_t i = 0; i < request.read.n; i++)
        reply(PEER_DATA, &request.read.items[i], 0, 1);
    for (int i = 0; i < 1000 && channel.used > 0; i++)
        turn();
    assert_seen_once(1, 0, 6);
    assert_seen_once(0, 0, 6);
}

/* Sends what spoil() makes of a sound reply; the channel must drop the connection. */
static void assert_dropped(void (*spoil)(PeerMessage *))
{
    unsigned before = downs;
    PeerReadItem item;
    PeerMessage message;

    tcp_channel_fetch(&channel, 0, 20, 4);
    read_request(PEER_READ);
    item = request.read.items[0];
    message = reply_to(PEER_DATA, &item, 0, 2);
    spoil(&message);
    write_all(bytes, put_reply(bytes, &message, &item));
    turn_until(&downs, before + 1);
    assert_int_equal(channel.fd, -1);
    assert_string_equal(last_reason, "the source sent a malformed or unexpected frame");
    assert_int_equal(seen[0][20], 0);
    connect_source(); /* and the next connection serves it */
    read_request(PEER_READ);
    reply(PEER_ZERO, &request.read.items[0], 0, 4);
    turn_until(&zeroes, 4);
    memset(seen, 0, sizeof seen);
    zeroes = 0;
}

static void spoil_seal(PeerMessage *m)
{
    m->placement.seal++;
}

static void spoil_session(PeerMessage *m)
{
    m->session++;
}

static void spoil_generation(PeerMessage *m)
{
    m->generation++;
}

static void spoil_cookie(PeerMessage *m)
{
    m->cookie = 63; /* nobody's */
}

static void spoil_cookie_range(PeerMessage *m)
{
    m->cookie = UINT64_C(1) << 40;
}

static void spoil_first(PeerMessage *m)
{
    m->placement.first = 1;
}

static void spoil_count(PeerMessage *m)
{
    m->placement.count = 5;
}

static void spoil_type(PeerMessage *m)
{
    m->type = PEER_RUNNING;
}

static void spoil_zero_count(PeerMessage *m)
{
    m->type = PEER_ZERO;
    m->placement.count = 0;
}

static void spoil_map(PeerMessage *m) /* of no region it asked for */
{
    m->type = PEER_MAP;
    memset(&m->map, 0, 64);
    m->map.region = 99;
}

static void nonsense_ends_the_connection_only(void **state)
{
    (void)state;
    assert_dropped(spoil_seal);
    assert_dropped(spoil_session);
    assert_dropped(spoil_generation);
    assert_dropped(spoil_cookie);
    assert_dropped(spoil_cookie_range);
    assert_dropped(spoil_first);
    assert_dropped(spoil_count);
    assert_dropped(spoil_type);
    assert_dropped(spoil_zero_count);
    assert_dropped(spoil_map);
}

/* Pages of another size than the region's. */
static void a_data_frame_of_another_page_size_ends_it(void **state)
{
    PeerMessage message;

    (void)state;
    tcp_channel_fetch(&channel, 0, 20, 1);
    read_request(PEER_READ);
    message = reply_to(PEER_DATA, &request.read.items[0], 0, 1);
    assert_true(peer_data_encode(&message, 2 * PAGE, bytes, 64) > 0);
    write_all(bytes, PEER_HEADER_SIZE + PEER_PLACEMENT_SIZE);
    turn_until(&downs, 1);
}

static void garbage_ends_it(void **state)
{
    (void)state;
    memset(bytes, 0xff, 100);
    write_all(bytes, 100);
    turn_until(&downs, 1);
}

static void only_what_never_came_is_asked_again(void **state)
{
    PeerReadItem item;
    PeerMessage message;
    size_t length;

    (void)state;
    tcp_channel_fetch(&channel, 0, 10, 8);
    tcp_channel_fetch(&channel, 0, 50, 2);
    read_request(PEER_READ);
    item = request.read.items[0];
    message = reply_to(PEER_DATA, &item, 0, 6);
    length = put_reply(bytes, &message, &item);
    write_all(bytes, length - 2 * PAGE - 100); /* three pages and most of the fourth */
    for (int i = 0; i < 100 && seen[0][12] == 0; i++)
        turn();
    close(source);
    source = -1;
    turn_until(&downs, 1);
    assert_string_equal(last_reason, "the source closed it");
    assert_int_equal(channel.used, 2);
    tcp_channel_fetch(&channel, 0, 70, 1); /* while there is no connection */
    connect_source();
    read_request(PEER_READ);
    assert_int_equal(request.read.n, 3);
    assert_int_equal(request.read.items[0].page, 13);
    assert_int_equal(request.read.items[0].count, 5);
    assert_int_equal(request.read.items[1].page, 50);
    assert_int_equal(request.read.items[1].count, 2);
    for (unsigned i = 0; i < 3; i++)
        reply(PEER_DATA, &request.read.items[i], 0, request.read.items[i].count);
    for (int i = 0; i < 100 && channel.used > 0; i++)
        turn();
    for (uint64_t page = 0; page < PAGES; page++)
        assert_int_equal(seen[0][page],
                         (page >= 10 && page < 18) || page == 50 || page == 51 || page == 70);
}

static void a_failed_read_is_asked_again_later(void **state)
{
    (void)state;
    tcp_channel_fetch(&channel, 0, 30, 4);
    read_request(PEER_READ);
    reply(PEER_DATA, &request.read.items[0], 0, 1);
    reply(PEER_ERROR, &request.read.items[0], 1, 3);
    turn_until(&failures, 1);
    assert_int_equal(last_code, PEER_ERROR_IO);
    assert_int_equal(seen[0][30], 1);
    read_request(PEER_READ);
    assert_int_equal(request.read.items[0].page, 31);
    assert_int_equal(request.read.items[0].count, 3);
    reply(PEER_DATA, &request.read.items[0], 0, 3);
    for (int i = 0; i < 100 && channel.used > 0; i++)
        turn();
    assert_seen_once(0, 30, 4);
}

static void a_failed_read_may_be_given_up(void **state)
{
    (void)state;
    retry_failed = false;
    tcp_channel_fetch(&channel, 0, 30, 4);
    read_request(PEER_READ);
    reply(PEER_ERROR, &request.read.items[0], 0, 4);
    turn_until(&failures, 1);
    assert_int_equal(channel.used, 0);
    assert_int_equal(downs, 0);
}

static void a_map_is_asked_for(void **state)
{
    PeerMessage map = {.type = PEER_MAP, .session = session, .generation = 1};
    ssize_t length;

    (void)state;
    tcp_channel_ask_map(&channel, 0, 40);
    read_request(PEER_MAP_REQUEST);
    assert_int_equal(request.map_request.region, SOURCE_REGION);
    assert_int_equal(request.map_request.page, 40);
    map.map.region = SOURCE_REGION;
    map.map.seal = SEAL;
    map.map.next = 100;
    map.map.n = 1;
    map.map.extents[0] = (PeerExtent){.page = 41, .count = 2};
    length = peer_message_encode(&map, bytes, sizeof bytes);
    write_all(bytes, (size_t)length);
    turn_until(&maps, 1);
    map.map.seal++;
    length = peer_message_encode(&map, bytes, sizeof bytes);
    write_all(bytes, (size_t)length);
    turn_until(&downs, 1);
    assert_int_equal(maps, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(requests_go_out_in_one_batch, set_up, tear_down),
        cmocka_unit_test_setup_teardown(slots_are_bounded_and_come_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(answers_may_be_split_anywhere, set_up, tear_down),
        cmocka_unit_test_setup_teardown(answers_may_come_in_crumbs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(long_answers_land_in_place, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_landing_that_is_cut_short_is_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_bad_page_fails_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(huge_pages_fit_the_buffer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nonsense_ends_the_connection_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_data_frame_of_another_page_size_ends_it, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(garbage_ends_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_what_never_came_is_asked_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_failed_read_is_asked_again_later, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_failed_read_may_be_given_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_map_is_asked_for, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
