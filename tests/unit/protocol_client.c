/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client protocol's codec: round trips, truncation, bounds.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/wire.h"
#include "tests/unit/protocol_samples.h"

#define MIB (UINT64_C(1) << 20)

static ClientMessage in, out;
static uint8_t packet[CLIENT_PACKET_MAX], again[CLIENT_PACKET_MAX];

/* Decodes exactly these bytes, from memory that ends behind them. */
static int decode(const void *bytes, size_t length)
{
    uint8_t *copy = malloc(length ? length : 1);
    int result;

    assert_non_null(copy);
    memcpy(copy, bytes, length);
    result = client_message_decode(copy, length, &out);
    free(copy);
    return result;
}

/* Encodes "in" and decodes it into "out". */
static int pass(uint32_t n_fds)
{
    ssize_t length = client_message_encode(&in, n_fds, packet);

    assert_true(length > 0);
    return decode(packet, (size_t)length);
}

static void every_type_comes_back_as_it_went(void **state)
{
    bool seen[CLIENT_END + 1] = {false};
    uint32_t n_fds;

    (void)state;
    for (unsigned i = 0; client_sample(i, &in, &n_fds); i++) {
        ssize_t length = client_message_encode(&in, n_fds, packet);
        assert_true(length > 0);
        assert_int_equal(decode(packet, (size_t)length), 0);
        assert_int_equal(out.type, in.type);
        assert_int_equal(out.serial, in.serial);
        assert_int_equal(out.n_fds, n_fds);
        assert_int_equal(client_message_encode(&out, n_fds, again), length);
        assert_memory_equal(packet, again, (size_t)length);
        seen[in.type] = true;
    }
    for (unsigned type = CLIENT_FDS; type <= CLIENT_END; type++)
        assert_true(seen[type]);
}

static void a_hello_keeps_its_fields(void **state)
{
    uint32_t n_fds;

    (void)state;
    assert_string_equal(client_sample(2, &in, &n_fds), "hello");
    assert_int_equal(pass(n_fds), 0);
    assert_int_equal(out.hello.role, CLIENT_ROLE_SOURCE);
    assert_string_equal(out.hello.name, "guest");
    assert_int_equal(out.hello.n_regions, 3);
    assert_string_equal(out.hello.regions[1].id, "pc.ram1");
    assert_int_equal(out.hello.regions[1].fd, 1);
    assert_int_equal(out.hello.regions[2].fd, -1);
    assert_int_equal(out.hello.regions[2].guest_address, 128 * MIB);
    assert_int_equal(out.hello.vcpus[1], 1235);
}

static void every_truncation_fails(void **state)
{
    uint32_t n_fds;

    (void)state;
    for (unsigned i = 0; client_sample(i, &in, &n_fds); i++) {
        ssize_t length = client_message_encode(&in, n_fds, packet);
        size_t step = length > 8192 ? 97 : 1;
        for (size_t at = 0; at < (size_t)length; at += step)
            assert_int_equal(decode(packet, at), -EPROTO);
        if ((size_t)length < sizeof packet) {
            packet[length] = 0;
            assert_int_equal(decode(packet, (size_t)length + 1), -EPROTO);
        }
    }
}

static void another_version_and_type_are_told_apart(void **state)
{
    ssize_t length;

    (void)state;
    in = (ClientMessage){.type = CLIENT_OK, .serial = 77};
    length = client_message_encode(&in, 0, packet);
    packet[2] = CLIENT_VERSION + 1;
    assert_int_equal(decode(packet, (size_t)length), -EPROTONOSUPPORT);
    packet[2] = CLIENT_VERSION;
    packet[0] = CLIENT_END + 1;
    packet[length] = 9; /* whatever its body is */
    assert_int_equal(decode(packet, (size_t)length + 1), 0);
    assert_int_equal(out.type, CLIENT_UNKNOWN);
    assert_int_equal(out.serial, 77); /* it can be answered */
    in.type = CLIENT_UNKNOWN;
    assert_int_equal(client_message_encode(&in, 0, packet), -EMSGSIZE);
}

static void sample_hello(void)
{
    uint32_t n_fds;

    client_sample(2, &in, &n_fds);
}

static void the_encoder_refuses_counts_beyond_its_arrays(void **state)
{
    (void)state;
    sample_hello();
    in.hello.n_regions = LIMIT_REGIONS + 1;
    assert_int_equal(client_message_encode(&in, 2, packet), -EMSGSIZE);
    sample_hello();
    in.hello.n_vcpus = LIMIT_VCPUS + 1;
    assert_int_equal(client_message_encode(&in, 2, packet), -EMSGSIZE);
    sample_hello();
    assert_int_equal(client_message_encode(&in, LIMIT_FDS + 1, packet), -EMSGSIZE);
    in = (ClientMessage){.type = CLIENT_VCPUS};
    in.vcpus.n = LIMIT_VCPUS + 1;
    assert_int_equal(client_message_encode(&in, 0, packet), -EMSGSIZE);
    in = (ClientMessage){.type = CLIENT_REPLY};
    in.json.length = CLIENT_JSON_MAX + 1;
    assert_int_equal(client_message_encode(&in, 0, packet), -EMSGSIZE);
    in = (ClientMessage){.type = CLIENT_KEEP};
    in.keep.length = LIMIT_BLOB + 1;
    assert_int_equal(client_message_encode(&in, 0, packet), -EMSGSIZE);
}

/* The header and the fields of a HELLO up to its name. */
static WireWriter begin_hello(uint32_t n_fds)
{
    WireWriter w = {.data = packet, .size = sizeof packet};
    uint8_t uuid[LIMIT_UUID] = {0};

    wire_write_u16(&w, CLIENT_HELLO);
    wire_write_u16(&w, CLIENT_VERSION);
    wire_write_u32(&w, 1);
    wire_write_u32(&w, n_fds);
    wire_write_u8(&w, CLIENT_ROLE_SOURCE);
    wire_write_u32(&w, 0);
    wire_write_u64(&w, 0);
    wire_write_bytes(&w, uuid, sizeof uuid);
    return w;
}

static void the_decoder_refuses_counts_beyond_its_arrays(void **state)
{
    WireWriter w = begin_hello(0);

    (void)state;
    wire_write_string(&w, "", 0);
    wire_write_string(&w, "", 0);
    wire_write_u32(&w, LIMIT_REGIONS + 1);
    w.used = sizeof packet; /* however much follows */
    assert_int_equal(decode(packet, w.used), -EPROTO);
    w = begin_hello(LIMIT_FDS + 1);
    assert_int_equal(decode(packet, w.used), -EPROTO);
    w = (WireWriter){.data = packet, .size = sizeof packet};
    wire_write_u16(&w, CLIENT_VCPUS);
    wire_write_u16(&w, CLIENT_VERSION);
    wire_write_u32(&w, 1);
    wire_write_u32(&w, 0);
    wire_write_u32(&w, UINT32_MAX);
    assert_int_equal(decode(packet, sizeof packet), -EPROTO);
}

static int pass_name(const char *name, size_t limit)
{
    WireWriter w = begin_hello(0);

    wire_write_string(&w, name, limit);
    wire_write_string(&w, "", 0);
    for (int i = 0; i < 5; i++) /* no regions, vcpus, shards, table, blob */
        wire_write_u32(&w, 0);
    return decode(packet, w.used);
}

static void strings_are_short_and_printable(void **state)
{
    char name[LIMIT_NAME + 2];

    (void)state;
    memset(name, 'x', sizeof name);
    name[LIMIT_NAME] = '\0';
    assert_int_equal(pass_name(name, LIMIT_NAME), 0);
    assert_string_equal(out.hello.name, name);
    name[LIMIT_NAME] = 'x';
    name[LIMIT_NAME + 1] = '\0';
    assert_int_equal(pass_name(name, LIMIT_NAME + 1), -EPROTO);
    assert_int_equal(pass_name("a\nb", 3), -EPROTO);
    assert_int_equal(pass_name("a\033[2J", 5), -EPROTO);
    assert_int_equal(pass_name("a\177", 2), -EPROTO);
    assert_int_equal(pass_name("M\303\274hle", 6), 0);
    assert_int_equal(pass_name("M\374hle", 5), -EPROTO);
    assert_int_equal(pass_name("M\303", 2), -EPROTO);
}

/* A reason that was cut in the middle of a character, or that another locale worded, is no offence. */
static void reasons_arrive_readable(void **state)
{
    (void)state;
    in = (ClientMessage){.type = CLIENT_STATE};
    memset(in.state.text, 'x', LIMIT_TEXT);
    in.state.text[LIMIT_TEXT - 1] = '\303';
    assert_int_equal(pass(0), 0);
    assert_int_equal(strlen(out.state.text), LIMIT_TEXT - 1);
    in = (ClientMessage){.type = CLIENT_ERROR, .status.text = "kein Ger\344t"};
    assert_int_equal(pass(0), 0);
    assert_string_equal(out.status.text, "kein Ger?t");
    sample_hello();
    strcpy(in.hello.problem, "\377");
    assert_int_equal(pass(2), 0);
    assert_string_equal(out.hello.problem, "?");
}

static void an_embedded_zero_fails(void **state)
{
    ssize_t length;

    (void)state;
    in = (ClientMessage){.type = CLIENT_OFFER, .offer.destination = "host:1"};
    length = client_message_encode(&in, 0, packet);
    packet[length - 3] = 0;
    assert_int_equal(decode(packet, (size_t)length), -EPROTO);
}

/* Structs are copied whole, into memory that clients see: nothing may stand behind a string. */
static void nothing_stays_behind_a_string(void **state)
{
    (void)state;
    sample_hello();
    memset(&out, 'x', sizeof out);
    assert_int_equal(pass(2), 0);
    for (size_t i = strlen("pc.ram0"); i <= LIMIT_REGION_ID; i++)
        assert_int_equal(out.hello.regions[0].id[i], 0);
}

static int pass_region(ClientRegion region, uint32_t n_fds)
{
    sample_hello();
    in.hello.n_regions = 1;
    in.hello.regions[0] = region;
    return pass(n_fds);
}

static ClientRegion good_region(void)
{
    sample_hello();
    return in.hello.regions[0];
}

#define assert_region_refused(field, value)                 \
    do {                                                    \
        ClientRegion changed = good_region();               \
        changed.field = (value);                            \
        assert_int_equal(pass_region(changed, 2), -EPROTO); \
    } while (0)

static void regions_keep_their_bounds(void **state)
{
    (void)state;
    assert_int_equal(pass_region(good_region(), 2), 0);
    assert_region_refused(page_size, 0);
    assert_region_refused(page_size, 2048);
    assert_region_refused(page_size, 3 * 4096);
    assert_region_refused(page_size, UINT64_C(1) << 31);
    assert_region_refused(length, 0);
    assert_region_refused(length, 4095);
    assert_region_refused(length, 4096 + 1);
    assert_region_refused(length, LIMIT_REGION_LENGTH + 4096);
    assert_region_refused(address, 0x7f0000000001);
    assert_region_refused(address, UINT64_MAX - 4095);
    assert_region_refused(fd_offset, 100);
    assert_region_refused(fd_offset, (uint64_t)INT64_MAX - 4095);
    assert_region_refused(fd_offset, UINT64_MAX - 4095);
    assert_region_refused(guest_address, UINT64_MAX - 4095);
}

static void regions_name_only_fds_that_came(void **state)
{
    ClientRegion region = good_region();

    (void)state;
    assert_region_refused(fd, 2);
    assert_region_refused(fd, -1);
    assert_region_refused(fd, INT32_MIN);
    assert_region_refused(kind, (ClientRegionKind)3);
    assert_region_refused(kind, CLIENT_REGION_ANONYMOUS); /* with an fd */
    region.guest_address = GUEST_ADDRESS_UNKNOWN;
    assert_int_equal(pass_region(region, 2), 0);
    region.kind = CLIENT_REGION_ANONYMOUS;
    region.fd = -1;
    assert_int_equal(pass_region(region, 0), 0);
}

static void sample_armed(uint32_t *ret_n_fds)
{
    for (unsigned i = 0;; i++)
        if (strcmp(client_sample(i, &in, ret_n_fds), "hello_armed") == 0)
            return;
}

/* RAM fds, then the table, then one uffd a shard, and nothing behind. */
static void an_armed_hello_names_its_fds(void **state)
{
    uint32_t n_fds;

    (void)state;
    sample_armed(&n_fds);
    assert_int_equal(pass(n_fds), 0);
    assert_int_equal(pass(n_fds + 1), -EPROTO);
    assert_int_equal(pass(n_fds - 1), -EPROTO);
    in.hello.table_fd = n_fds;
    assert_int_equal(pass(n_fds), -EPROTO);
    in.hello.table_fd = UINT32_MAX;
    assert_int_equal(pass(n_fds), -EPROTO);
    sample_armed(&n_fds);
    in.hello.n_shards = 0;
    assert_int_equal(pass(n_fds), -EPROTO);
    sample_armed(&n_fds);
    in.hello.flags = 0;
    assert_int_equal(pass(n_fds), -EPROTO);
    sample_armed(&n_fds);
    in.hello.shards[1].region = in.hello.n_regions;
    assert_int_equal(pass(n_fds), -EPROTO);
}

static void shards_keep_their_bounds(void **state)
{
    uint32_t n_fds;

    (void)state;
    sample_armed(&n_fds);
    in.hello.shards[0].length = 0;
    assert_int_equal(pass(n_fds), -EPROTO);
    in.hello.shards[0].length = LIMIT_REGION_LENGTH + 1;
    assert_int_equal(pass(n_fds), -EPROTO);
    in.hello.shards[0].length = 4096;
    in.hello.shards[0].start = UINT64_MAX - 4095;
    assert_int_equal(pass(n_fds), -EPROTO);
}

static void enums_keep_their_bounds(void **state)
{
    (void)state;
    sample_hello();
    in.hello.role = (ClientRole)3;
    assert_int_equal(pass(2), -EPROTO);
    in = (ClientMessage){.type = CLIENT_STATE};
    in.state.state = CLIENT_STATE_LAST;
    assert_int_equal(pass(0), 0);
    in.state.state = (ClientState)(CLIENT_STATE_LAST + 1);
    assert_int_equal(pass(0), -EPROTO);
    assert_string_equal(client_state_name(CLIENT_STATE_FENCED), "fenced");
    assert_string_equal(client_state_name((ClientState)99), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_comes_back_as_it_went),
        cmocka_unit_test(a_hello_keeps_its_fields),
        cmocka_unit_test(every_truncation_fails),
        cmocka_unit_test(another_version_and_type_are_told_apart),
        cmocka_unit_test(the_encoder_refuses_counts_beyond_its_arrays),
        cmocka_unit_test(the_decoder_refuses_counts_beyond_its_arrays),
        cmocka_unit_test(strings_are_short_and_printable),
        cmocka_unit_test(reasons_arrive_readable),
        cmocka_unit_test(an_embedded_zero_fails),
        cmocka_unit_test(nothing_stays_behind_a_string),
        cmocka_unit_test(regions_keep_their_bounds),
        cmocka_unit_test(regions_name_only_fds_that_came),
        cmocka_unit_test(an_armed_hello_names_its_fds),
        cmocka_unit_test(shards_keep_their_bounds),
        cmocka_unit_test(enums_keep_their_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
