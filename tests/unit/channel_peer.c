/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/channel_peer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

const uint64_t page_sizes[] = {PAGE, HUGE_PAGE};
static const uint32_t wire_regions[] = {SOURCE_REGION, SOURCE_REGION + 1};

Ring ring;
Channel channel;
int source = -1;
uint32_t session;

/* What the sink was told. */
unsigned seen[2][PAGES], zeroes, failures, maps, downs;
bool retry_failed;
PeerErrorCode last_code;
char last_reason[200];

static uint8_t byte_of(uint32_t region, uint64_t page, size_t at)
{
    return (uint8_t)(page * 7 + region + at * 13 + (at >> 12) + 1);
}

void fill_pages(uint32_t region, uint64_t page, uint64_t count, uint8_t *to)
{
    for (uint64_t i = 0; i < count; i++)
        for (size_t at = 0; at < page_sizes[region]; at++)
            to[i * page_sizes[region] + at] = byte_of(region, page + i, at);
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
uint8_t *landing;
unsigned landed;

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

RdmaLane *next_lane;
uint32_t (*source_of)(uint32_t region, uint64_t page, uint32_t count, FetchSource *ret_source);
uint32_t (*landing_of)(const Fetch *fetch, uint32_t first, uint32_t count,
                       FetchLanding *ret_landing);
void (*while_told)(Fetch *fetch, uint32_t first, uint32_t count);
bool spoiled[PAGES];

static uint32_t on_source(void *owner, uint32_t region, uint64_t page, uint32_t count,
                          FetchSource *ret_source)
{
    (void)owner;
    assert_non_null(channel.lane);
    return source_of ? source_of(region, page, count, ret_source) : 0;
}

static uint32_t on_land(void *owner, const Fetch *fetch, uint32_t first, uint32_t count,
                        FetchLanding *ret_landing)
{
    (void)owner;
    return landing_of ? landing_of(fetch, first, count, ret_landing) : 0;
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
        spoiled[page] = fetch->spoiled;
        zeroes += content == FETCH_ZERO;
        if (at)
            check_page(fetch->region, page, at + i * page_sizes[fetch->region]);
    }
    if (while_told)
        while_told(fetch, first, count);
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

PeerMessage last_keys;
unsigned keys;

static void on_keys(void *owner, uint32_t region, const PeerMessage *message)
{
    (void)owner;
    assert_int_equal(region, 1);
    last_keys = *message;
    keys++;
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
    .source = on_source,
    .land = on_land,
    .failed = on_failed,
    .map = on_map,
    .keys = on_keys,
    .down = on_down,
};

void turn(void)
{
    channel_flush(&channel);
    assert_int_equal(ring_wait(&ring, 1), 0);
}

void turn_until(const unsigned *counter, unsigned value)
{
    for (int i = 0; i < 5000 && *counter < value; i++)
        turn();
    assert_int_equal(*counter, value);
}

void connect_source(void)
{
    int pair[2];

    if (source >= 0)
        close(source);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    source = pair[1];
    channel_attach(&channel, pair[0], ++session, 1, next_lane);
    next_lane = NULL;
}

static void on_woken(void *owner)
{
    (void)owner;
}

static void begin(bool with_maps)
{
    memset(seen, 0, sizeof seen);
    memset(spoiled, 0, sizeof spoiled);
    zeroes = failures = maps = downs = keys = 0;
    source_of = NULL;
    landing_of = NULL;
    while_told = NULL;
    retry_failed = true;
    assert_int_equal(ring_init(&ring, on_woken, NULL), 0);
    assert_int_equal(ring_start(&ring, 64), 0);
    assert_int_equal(
        channel_init(&channel, &ring, &sink, NULL, page_sizes, wire_regions, 2, IN_SIZE, with_maps),
        0);
    channel.seal = SEAL;
    connect_source();
}

int set_up(void **state)
{
    (void)state;
    begin(true);
    return 0;
}

int set_up_urgent(void **state)
{
    (void)state;
    begin(false);
    return 0;
}

int tear_down(void **state)
{
    (void)state;
    channel_drop(&channel, "end of test");
    while (channel.receiving.busy || channel.sending.busy || channel.completing.busy)
        turn();
    channel_deinit(&channel);
    ring_stop(&ring);
    ring_deinit(&ring);
    close(source);
    source = -1;
    return 0;
}

/* --- the source ---------------------------------------------------------------------------- */

/* All bytes; the channel takes them meanwhile. */
void write_all(const uint8_t *data, size_t length)
{
    while (length > 0) {
        ssize_t n = send(source, data, length, MSG_NOSIGNAL);
        if (n < 0) {
            assert_int_equal(errno, EAGAIN);
            turn();
            continue;
        }
        data += n;
        length -= (size_t)n;
    }
}

PeerMessage request;

/* The next frame that the channel sent. */
void read_request(PeerMessageType type)
{
    static uint8_t frame[PEER_HEADER_SIZE + PEER_CONTROL_MAX];
    PeerHeader header;

    for (int i = 0; i < 2500 && recv(source, frame, 1, MSG_PEEK) < 1; i++)
        turn();
    assert_int_equal(recv(source, frame, PEER_HEADER_SIZE, 0), PEER_HEADER_SIZE);
    assert_int_equal(peer_header_decode(frame, &header), 0);
    assert_int_equal(recv(source, frame + PEER_HEADER_SIZE, header.length, 0), header.length);
    assert_int_equal(peer_message_decode(&header, frame + PEER_HEADER_SIZE, &request), 0);
    assert_int_equal(request.type, type);
    assert_int_equal(request.session, session);
    assert_int_equal(request.generation, 1);
}

PeerMessage reply_to(PeerMessageType type, const PeerReadItem *item, uint32_t first, uint32_t count)
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
size_t put_reply(uint8_t *out, const PeerMessage *reply, const PeerReadItem *item)
{
    uint32_t region = item->region - SOURCE_REGION;
    size_t page_size = page_sizes[region];
    size_t length = reply->type == PEER_DATA ? reply->placement.count * page_size : 0;
    ssize_t head = peer_data_encode(reply, (uint32_t)length, out, 64);

    assert_true(head > 0);
    for (size_t i = 0; i < length; i++)
        out[(size_t)head + i] =
            byte_of(region, item->page + reply->placement.first + i / page_size, i % page_size);
    return (size_t)head + length;
}

uint8_t bytes[BYTES];

void reply(PeerMessageType type, const PeerReadItem *item, uint32_t first, uint32_t count)
{
    PeerMessage message = reply_to(type, item, first, count);

    write_all(bytes, put_reply(bytes, &message, item));
}

void assert_seen_once(uint32_t region, uint64_t first, uint64_t count)
{
    for (uint64_t page = 0; page < PAGES; page++)
        assert_int_equal(seen[region][page], page >= first && page < first + count);
}

void make_landing(void)
{
    landing_fd = memfd_create("landing", MFD_CLOEXEC);
    assert_int_equal(ftruncate(landing_fd, (off_t)PAGES * PAGE), 0);
    landing = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, landing_fd, 0);
    assert_ptr_not_equal(landing, MAP_FAILED);
}

void drop_landing(void)
{
    munmap(landing, PAGES * PAGE);
    close(landing_fd);
    landing = NULL;
    landing_fd = -1;
    landed = 0;
}
