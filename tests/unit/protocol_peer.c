/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The codec of the protocol between daemons: round trips, truncation, bounds.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/protocol_samples.h"

static PeerMessage in, out;
static uint8_t frame[PEER_HEADER_SIZE + PEER_CONTROL_MAX], again[sizeof frame];

static void sample(const char *name)
{
    for (unsigned i = 0;; i++)
        if (strcmp(peer_sample(i, &in), name) == 0)
            return;
}

/* Decodes a body of that many bytes, from memory that ends behind them. */
static int decode(const PeerHeader *header)
{
    uint8_t *body = malloc(header->length ? header->length : 1);
    int result;

    assert_non_null(body);
    memcpy(body, frame + PEER_HEADER_SIZE, header->length);
    result = peer_message_decode(header, body, &out);
    free(body);
    return result;
}

static int pass(void)
{
    PeerHeader header;

    assert_true(peer_message_encode(&in, frame, sizeof frame) > 0);
    assert_int_equal(peer_header_decode(frame, &header), 0);
    return decode(&header);
}

static void every_type_comes_back_as_it_went(void **state)
{
    (void)state;
    for (unsigned i = 0; peer_sample(i, &in); i++) {
        ssize_t length = peer_message_encode(&in, frame, sizeof frame);
        if (in.type == PEER_DATA)
            continue;
        assert_int_equal(pass(), 0);
        assert_int_equal(out.type, in.type);
        assert_int_equal(out.session, 3);
        assert_int_equal(out.generation, 1);
        assert_int_equal(out.cookie, in.cookie);
        assert_int_equal(peer_message_encode(&out, again, sizeof again), length);
        assert_memory_equal(frame, again, (size_t)length);
    }
}

static void every_truncation_fails(void **state)
{
    (void)state;
    for (unsigned i = 0; peer_sample(i, &in); i++) {
        PeerHeader header;

        assert_true(peer_message_encode(&in, frame, sizeof frame) > 0);
        assert_int_equal(peer_header_decode(frame, &header), 0);
        if (in.type == PEER_DATA)
            continue;
        for (uint32_t length = header.length++; length-- > 0;) {
            PeerHeader cut = header;
            cut.length = length;
            assert_int_equal(decode(&cut), -EPROTO);
        }
        assert_int_equal(decode(&header), -EPROTO); /* one byte too many */
    }
}

/* The one field that may be missing: older daemons have it not. */
static void flags_of_asked_are_whole_or_left_out(void **state)
{
    PeerHeader header;
    uint32_t without;

    (void)state;
    memset(&in, 0, sizeof in);
    in.type = PEER_ASKED;
    assert_int_equal(pass(), 0);
    assert_int_equal(out.asked.flags, 0);
    assert_int_equal(peer_header_decode(frame, &header), 0);
    without = header.length;
    in.asked.flags = PEER_ASKED_AHEAD | 1U << 31;
    assert_int_equal(pass(), 0);
    assert_int_equal(out.asked.flags, in.asked.flags);
    assert_int_equal(peer_header_decode(frame, &header), 0);
    assert_int_equal(header.length, without + 4);
    memset(frame + PEER_HEADER_SIZE + without, 0, 4);
    assert_int_equal(decode(&header), -EPROTO);
    while (--header.length > without)
        assert_int_equal(decode(&header), -EPROTO);
    assert_int_equal(decode(&header), 0);
    assert_int_equal(out.asked.flags, 0);
}

static void the_encoder_never_writes_beyond_the_frame(void **state)
{
    (void)state;
    for (unsigned i = 0; peer_sample(i, &in); i++) {
        ssize_t length = peer_message_encode(&in, frame, sizeof frame);
        for (size_t size = 0; size < (size_t)length; size++) {
            uint8_t *small = malloc(size ? size : 1);
            assert_int_equal(peer_message_encode(&in, small, size), -EMSGSIZE);
            free(small);
        }
    }
}

static void an_unknown_type_is_skipped_whole(void **state)
{
    PeerHeader header = {.length = 100, .type = PEER_KEYS_DONE + 1, .cookie = 5};

    (void)state;
    assert_int_equal(decode(&header), 0);
    assert_int_equal(out.type, PEER_UNKNOWN);
    assert_int_equal(out.cookie, 5);
    in.type = PEER_UNKNOWN;
    assert_int_equal(peer_message_encode(&in, frame, sizeof frame), -EMSGSIZE);
}

static int header_of(PeerMessageType type, uint32_t length, uint16_t flags)
{
    uint8_t bytes[PEER_HEADER_SIZE] = {(uint8_t)length,         (uint8_t)(length >> 8),
                                       (uint8_t)(length >> 16), (uint8_t)(length >> 24),
                                       (uint8_t)type,           0,
                                       (uint8_t)flags,          (uint8_t)(flags >> 8)};
    PeerHeader header;

    return peer_header_decode(bytes, &header);
}

static void the_header_bounds_the_body(void **state)
{
    (void)state;
    assert_int_equal(header_of(PEER_READ, PEER_CONTROL_MAX, 0), 0);
    assert_int_equal(header_of(PEER_READ, PEER_CONTROL_MAX + 1, 0), -EPROTO);
    assert_int_equal(header_of(PEER_KEYS_DONE + 1, PEER_CONTROL_MAX + 1, 0), -EPROTO);
    assert_int_equal(header_of(PEER_DATA, PEER_PLACEMENT_SIZE + PEER_DATA_MAX, 0), 0);
    assert_int_equal(header_of(PEER_DATA, PEER_PLACEMENT_SIZE + PEER_DATA_MAX + 1, 0), -EPROTO);
    assert_int_equal(header_of(PEER_PING, 0, 1), -EPROTO);
    assert_int_equal(header_of(PEER_PING, UINT32_MAX, 0), -EPROTO);
}

/* The fixed body of "in" under a header of that type and length. */
static int placement_of(PeerMessageType type, uint32_t length)
{
    PeerHeader header = {.length = length, .type = (uint16_t)type};
    PeerPlacement placement;

    in.type = PEER_ZERO;
    assert_true(peer_message_encode(&in, frame, sizeof frame) > 0);
    return peer_placement_decode(&header, frame + PEER_HEADER_SIZE, &placement);
}

static void a_placement_agrees_with_its_length(void **state)
{
    (void)state;
    sample("zero"); /* two pages */
    assert_int_equal(placement_of(PEER_ZERO, PEER_PLACEMENT_SIZE), 0);
    assert_int_equal(placement_of(PEER_ZERO, PEER_PLACEMENT_SIZE + 1), -EPROTO);
    assert_int_equal(placement_of(PEER_ZERO, PEER_PLACEMENT_SIZE - 1), -EPROTO);
    assert_int_equal(placement_of(PEER_DATA, 0), -EPROTO);
    assert_int_equal(placement_of(PEER_DATA, PEER_PLACEMENT_SIZE), -EPROTO);
    assert_int_equal(placement_of(PEER_DATA, PEER_PLACEMENT_SIZE + 8192), 0);
    assert_int_equal(placement_of(PEER_DATA, PEER_PLACEMENT_SIZE + 8191), -EPROTO);
    in.placement.count = 0;
    assert_int_equal(placement_of(PEER_ZERO, PEER_PLACEMENT_SIZE), -EPROTO);
    assert_int_equal(placement_of(PEER_DATA, PEER_PLACEMENT_SIZE), -EPROTO);
    in.placement = (PeerPlacement){.first = UINT32_MAX, .count = 1};
    assert_int_equal(placement_of(PEER_ZERO, PEER_PLACEMENT_SIZE), -EPROTO);
    in.placement = (PeerPlacement){.count = 1, .code = PEER_ERROR_LAST + 1};
    assert_int_equal(placement_of(PEER_ERROR, PEER_PLACEMENT_SIZE), -EPROTO);
}

static void a_data_frame_counts_its_pages(void **state)
{
    PeerPlacement placement;
    PeerHeader header;

    (void)state;
    sample("data");
    assert_int_equal(peer_data_encode(&in, 8192, frame, sizeof frame),
                     PEER_HEADER_SIZE + PEER_PLACEMENT_SIZE);
    assert_int_equal(peer_header_decode(frame, &header), 0);
    assert_int_equal(header.length, PEER_PLACEMENT_SIZE + 8192);
    assert_int_equal(header.cookie, 7);
    assert_int_equal(peer_placement_decode(&header, frame + PEER_HEADER_SIZE, &placement), 0);
    assert_int_equal(placement.seal, 42);
    assert_int_equal(placement.first, 3);
    assert_int_equal(placement.count, 2);
}

static void map_extents_ascend_and_end_before_next(void **state)
{
    (void)state;
    sample("map");
    assert_int_equal(pass(), 0);
    in.map.extents[1].page = 9; /* overlaps the first */
    assert_int_equal(pass(), -EPROTO);
    sample("map");
    in.map.extents[1].count = 0;
    assert_int_equal(pass(), -EPROTO);
    sample("map");
    in.map.extents[2].count = UINT64_MAX;
    assert_int_equal(pass(), -EPROTO);
    sample("map");
    in.map.next = 1999;
    assert_int_equal(pass(), -EPROTO);
    sample("map");
    in.map.region = LIMIT_REGIONS;
    assert_int_equal(pass(), -EPROTO);
    in.map.n = PEER_MAP_EXTENTS + 1;
    assert_int_equal(peer_message_encode(&in, frame, sizeof frame), -EMSGSIZE);
}

static void an_end_keeps_its_bounds(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        PeerRdmaEnd *end = &in.rdma_connect.end;

        sample("rdma_connect");
        assert_int_equal(pass(), 0);
        assert_memory_equal(&out.rdma_connect.end.gid, end->gid, sizeof end->gid);
        if (i == 0)
            end->qpn = 1 << 24;
        else if (i == 1)
            end->psn = 1 << 24;
        else if (i == 2)
            end->mtu = 0;
        else if (i == 3)
            end->mtu = 6;
        else
            end->reads = 0;
        assert_int_equal(pass(), -EPROTO);
        sample("rdma_connected");
        in.rdma_connected.end.psn = UINT32_MAX;
        assert_int_equal(pass(), -EPROTO);
    }
}

/* What a refusal would otherwise leave from the message before it. */
static void a_refusal_has_no_end(void **state)
{
    PeerRdmaEnd none = {0};

    (void)state;
    sample("rdma_connected");
    assert_int_equal(pass(), 0);
    sample("rdma_refused");
    assert_int_equal(pass(), 0);
    assert_int_equal(out.rdma_connected.code, PEER_ERROR_REFUSED);
    assert_string_equal(out.rdma_connected.text, in.rdma_connected.text);
    assert_memory_equal(&out.rdma_connected.end, &none, sizeof none);
    in.rdma_connected.code = PEER_ERROR_LAST + 1;
    assert_int_equal(pass(), -EPROTO);
}

static int pass_keys(uint64_t page, uint64_t count, uint64_t next)
{
    sample("keys");
    in.keys.n = 0;
    in.keys.span.page = page;
    in.keys.span.count = count;
    in.keys.next = next;
    return pass();
}

static void a_span_keeps_its_bounds(void **state)
{
    const uint64_t most = PEER_SPAN_MAX / LIMIT_PAGE_SIZE_MIN;

    (void)state;
    assert_int_equal(pass_keys(5, 1, 6), 0);
    assert_int_equal(out.keys.span.page, 5);
    assert_int_equal(pass_keys(5, 2, 6), -EPROTO); /* beyond where to go on */
    assert_int_equal(pass_keys(5, 0, 6), -EPROTO);
    assert_int_equal(pass_keys(0, most, most), 0);
    assert_int_equal(pass_keys(0, most + 1, most + 1), -EPROTO);
    assert_int_equal(pass_keys(UINT64_MAX, 2, UINT64_MAX), -EPROTO);
    sample("keys");
    in.keys.span.address = UINT64_MAX - PEER_SPAN_MAX + 1;
    assert_int_equal(pass(), -EPROTO);
    sample("keys");
    in.keys.region = LIMIT_REGIONS;
    assert_int_equal(pass(), -EPROTO);
    sample("keys");
    in.keys.seal = 0;
    assert_int_equal(pass(), -EPROTO);
    sample("keys_full");
    in.keys.state = PEER_KEYS_LAST + 1;
    assert_int_equal(pass(), -EPROTO);
    sample("keys_request");
    in.keys_request.region = LIMIT_REGIONS;
    assert_int_equal(pass(), -EPROTO);
}

/* The sample's span is pages 100 to 1100. */
static int pass_zeroes(uint64_t first, uint64_t first_count, uint64_t second, uint64_t second_count)
{
    sample("keys");
    in.keys.zeroes[0] = (PeerExtent){.page = first, .count = first_count};
    in.keys.zeroes[1] = (PeerExtent){.page = second, .count = second_count};
    return pass();
}

static void zeroes_ascend_inside_their_span(void **state)
{
    (void)state;
    assert_int_equal(pass_zeroes(100, 500, 600, 500), 0);
    assert_int_equal(out.keys.zeroes[1].count, 500);
    assert_int_equal(pass_zeroes(99, 1, 600, 1), -EPROTO);
    assert_int_equal(pass_zeroes(100, 1, 1099, 2), -EPROTO);
    assert_int_equal(pass_zeroes(100, 500, 599, 1), -EPROTO);
    assert_int_equal(pass_zeroes(600, 1, 100, 1), -EPROTO);
    assert_int_equal(pass_zeroes(100, 0, 600, 1), -EPROTO);
    assert_int_equal(pass_zeroes(100, 1, 600, UINT64_MAX), -EPROTO);
    sample("keys");
    in.keys.n = PEER_MAP_EXTENTS + 1;
    assert_int_equal(peer_message_encode(&in, frame, sizeof frame), -EMSGSIZE);
}

/* One answer's span is not the next one's. */
static void keys_without_a_span_have_none(void **state)
{
    (void)state;
    sample("keys");
    assert_int_equal(pass(), 0);
    sample("keys_full");
    assert_int_equal(pass(), 0);
    assert_int_equal(out.keys.state, PEER_KEYS_FULL);
    assert_int_equal(out.keys.next, 2000);
    assert_int_equal(out.keys.n, 0);
    assert_int_equal(out.keys.span.count, 0);
}

static void the_largest_messages_fit_a_frame(void **state)
{
    (void)state;
    sample("map");
    in.map.n = PEER_MAP_EXTENTS;
    in.map.next = UINT64_C(2) * PEER_MAP_EXTENTS;
    for (uint32_t i = 0; i < in.map.n; i++)
        in.map.extents[i] = (PeerExtent){.page = 2 * i, .count = 1};
    assert_int_equal(pass(), 0);
    sample("keys");
    in.keys.span.page = 0;
    in.keys.span.count = in.keys.next = UINT64_C(2) * PEER_MAP_EXTENTS;
    in.keys.n = PEER_MAP_EXTENTS;
    for (uint32_t i = 0; i < in.keys.n; i++)
        in.keys.zeroes[i] = (PeerExtent){.page = 2 * i, .count = 1};
    assert_int_equal(pass(), 0);
    sample("invite");
    in.invite.regions.n = LIMIT_REGIONS;
    for (uint32_t i = 0; i < LIMIT_REGIONS; i++) {
        in.invite.regions.regions[i] = in.invite.regions.regions[0];
        memset(in.invite.regions.regions[i].id, 'i', LIMIT_REGION_ID);
    }
    assert_int_equal(pass(), 0);
    in.invite.regions.n = LIMIT_REGIONS + 1;
    assert_int_equal(peer_message_encode(&in, frame, sizeof frame), -EMSGSIZE);
}

static void regions_keep_their_bounds(void **state)
{
    (void)state;
    sample("invite");
    in.invite.regions.regions[0].page_size = PEER_PAGE_SIZE_MAX * 2; /* too large to travel */
    in.invite.regions.regions[0].length = PEER_PAGE_SIZE_MAX * 2;
    assert_int_equal(pass(), -EPROTO);
    sample("attached");
    in.attached.regions.regions[1].length += 4096;
    assert_int_equal(pass(), -EPROTO);
    sample("invite");
    in.invite.name[0] = '\n';
    assert_int_equal(pass(), -EPROTO);
}

static void codes_and_kinds_keep_their_bounds(void **state)
{
    (void)state;
    sample("bye");
    in.status.code = PEER_ERROR_LAST + 1;
    assert_int_equal(pass(), -EPROTO);
    sample("join");
    in.join.kind = (PeerChannelKind)(PEER_CHANNEL_RELAY + 1);
    assert_int_equal(pass(), -EPROTO);
    sample("progress");
    in.progress.state = CLIENT_STATE_LAST + 1;
    assert_int_equal(pass(), -EPROTO);
    sample("map_request");
    in.map_request.region = LIMIT_REGIONS;
    assert_int_equal(pass(), -EPROTO);
    assert_string_equal(peer_error_name(PEER_ERROR_CLIENT_GONE), "client gone");
    assert_string_equal(peer_error_name((PeerErrorCode)99), "unknown");
}

static void a_read_bounds_its_items(void **state)
{
    PeerReadItem items[PEER_READ_ITEMS + 1] = {{.cookie = 1}};
    PeerHeader header;

    (void)state;
    assert_true(peer_read_encode(3, 1, items, PEER_READ_ITEMS, frame, sizeof frame) > 0);
    assert_int_equal(peer_header_decode(frame, &header), 0);
    assert_int_equal(decode(&header), 0);
    assert_int_equal(out.read.n, PEER_READ_ITEMS);
    assert_int_equal(out.read.items[0].cookie, 1);
    assert_int_equal(peer_read_encode(3, 1, items, PEER_READ_ITEMS + 1, frame, sizeof frame),
                     -EMSGSIZE);
    frame[PEER_HEADER_SIZE] = PEER_READ_ITEMS + 1;
    assert_int_equal(decode(&header), -EPROTO);
}

static void strings_are_utf8(void **state)
{
    PeerHeader header;
    ssize_t length;

    (void)state;
    sample("progress");
    strcpy(in.progress.text, "\303\274x");
    assert_int_equal(pass(), 0);
    assert_string_equal(out.progress.text, "\303\274x");
    length = peer_message_encode(&in, frame, sizeof frame);
    assert_int_equal(peer_header_decode(frame, &header), 0);
    frame[length - 1] = 0xff; /* the text is its end */
    assert_int_equal(decode(&header), -EPROTO);
    sample("attach");
    strcpy(in.attach.name, "\377");
    assert_int_equal(pass(), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_comes_back_as_it_went),
        cmocka_unit_test(every_truncation_fails),
        cmocka_unit_test(flags_of_asked_are_whole_or_left_out),
        cmocka_unit_test(the_encoder_never_writes_beyond_the_frame),
        cmocka_unit_test(an_unknown_type_is_skipped_whole),
        cmocka_unit_test(the_header_bounds_the_body),
        cmocka_unit_test(a_placement_agrees_with_its_length),
        cmocka_unit_test(a_data_frame_counts_its_pages),
        cmocka_unit_test(map_extents_ascend_and_end_before_next),
        cmocka_unit_test(an_end_keeps_its_bounds),
        cmocka_unit_test(a_refusal_has_no_end),
        cmocka_unit_test(a_span_keeps_its_bounds),
        cmocka_unit_test(zeroes_ascend_inside_their_span),
        cmocka_unit_test(keys_without_a_span_have_none),
        cmocka_unit_test(the_largest_messages_fit_a_frame),
        cmocka_unit_test(regions_keep_their_bounds),
        cmocka_unit_test(codes_and_kinds_keep_their_bounds),
        cmocka_unit_test(a_read_bounds_its_items),
        cmocka_unit_test(strings_are_utf8),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
