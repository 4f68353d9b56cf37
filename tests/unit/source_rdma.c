/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an export's data channel answers to a destination that wants to read by itself, as far as no device is
 * needed for it: what pins only counts.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/source/export_rdma.h"
#include "tests/unit/source_reader.h"

static PeerMessage message;
static RdmaBudget budget;

static struct {
    _Atomic unsigned pinned;
    _Atomic bool fences; /* the source runs again while it pins */
} device;

static uint64_t room(void *owner)
{
    (void)owner;
    return UINT64_C(1) << 30;
}

static void *pin(void *owner, void *memory, size_t length, uint32_t *ret_rkey, int *ret_error)
{
    (void)owner;
    (void)memory;
    (void)length;
    *ret_rkey = 77;
    *ret_error = 0;
    atomic_fetch_add(&device.pinned, 1);
    if (atomic_load(&device.fences))
        export_fence(reader.export, "the source ran again");
    return &device;
}

static void unpin(void *owner, void *pinned, size_t length)
{
    (void)owner;
    (void)length;
    assert_ptr_equal(pinned, &device);
    atomic_fetch_sub(&device.pinned, 1);
}

static int prepare(void **state, bool bulk)
{
    reader.bulk = bulk;
    atomic_store(&device.fences, false);
    budget.most = UINT64_C(1) << 30;
    reader.link = (ServerLink){.features = PEER_FEATURE_RDMA, .budget = &budget};
    return reader_set_up(state);
}

static int set_up(void **state)
{
    return prepare(state, true);
}

static int connected(void **state, bool bulk)
{
    const SpanPins pins = {.room = room, .pin = pin, .unpin = unpin};
    int failed = prepare(state, bulk);

    if (failed)
        return failed;
    reader.channel.rdma = export_rdma_new(reader.export, NULL, NULL, &pins);
    reader.export->rdma = reader.channel.rdma;
    return !reader.channel.rdma;
}

/* A bulk channel as it is once it has its queue pair. */
static int set_up_connected(void **state)
{
    return connected(state, true);
}

static int set_up_urgent(void **state)
{
    return connected(state, false);
}

static int tear_down(void **state)
{
    int failed = reader_tear_down(state);

    assert_int_equal(atomic_load(&device.pinned), 0);
    assert_int_equal(atomic_load(&budget.used), 0);
    return failed;
}

static void send_message(PeerMessageType type)
{
    ssize_t length;

    message.type = type;
    message.session = SESSION;
    message.generation = GENERATION;
    length = peer_message_encode(&message, reader.frame, sizeof reader.frame);
    assert_true(length > 0);
    reader_send((size_t)length);
}

static void take_message(PeerMessageType type)
{
    reader_receive(reader.frame, PEER_HEADER_SIZE);
    assert_int_equal(peer_header_decode(reader.frame, &reader.header), 0);
    assert_int_equal(reader.header.type, type);
    assert_int_equal(reader.header.session, SESSION);
    assert_int_equal(reader.header.generation, GENERATION);
    assert_int_equal(reader.header.cookie, 0);
    reader_receive(reader.frame + PEER_HEADER_SIZE, reader.header.length);
    assert_int_equal(peer_message_decode(&reader.header, reader.frame + PEER_HEADER_SIZE, &message),
                     0);
}

static void assert_ended(void)
{
    assert_int_equal(recv(reader.pair[0], reader.frame, 1, 0), 0);
}

static void ask_connect(void)
{
    memset(&message, 0, sizeof message);
    message.rdma_connect.end = (PeerRdmaEnd){.qpn = 20, .psn = 1, .mtu = 3, .reads = 1};
    send_message(PEER_RDMA_CONNECT);
}

static void assert_refused(const char *why)
{
    ExportRdmaReport report;

    take_message(PEER_RDMA_CONNECTED);
    assert_int_equal(message.rdma_connected.code, PEER_ERROR_REFUSED);
    if (why)
        assert_string_equal(message.rdma_connected.text, why);
    assert_true(strlen(message.rdma_connected.text) > 0);
    export_rdma_report(reader.export, &report);
    assert_string_equal(report.refusal, message.rdma_connected.text);
    assert_int_equal(report.pairs, 0);
    assert_string_equal(report.device, "");
}

static void ask_keys(uint32_t region, uint64_t page)
{
    message.keys_request.region = region;
    message.keys_request.page = page;
    send_message(PEER_KEYS_REQUEST);
}

static void retire(uint32_t id)
{
    message.keys_done.id = id;
    send_message(PEER_KEYS_DONE);
}

static void assert_readable(void)
{
    PeerReadItem item = {.cookie = 1, .page = 1, .count = 1};

    reader_ask(&item, 1);
    assert_int_equal(reader_take_item(&item), 1);
}

/* --- tests --------------------------------------------------------------------------------- */

static void who_does_not_know_rdma_may_not_speak_of_it(void **state)
{
    static const PeerMessageType types[] = {PEER_RDMA_CONNECT, PEER_KEYS_REQUEST, PEER_KEYS_DONE};

    for (unsigned i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (i > 0) {
            assert_int_equal(tear_down(state), 0);
            assert_int_equal(set_up_connected(state), 0);
        }
        reader.link.features = 0;
        export_seal(reader.export);
        memset(&message, 0, sizeof message);
        message.rdma_connect.end = (PeerRdmaEnd){.qpn = 20, .mtu = 3, .reads = 1};
        if (types[i] != PEER_RDMA_CONNECT)
            memset(&message, 0, sizeof message);
        send_message(types[i]);
        assert_ended();
    }
}

static void a_refused_destination_reads_as_before(void **state)
{
    (void)state;
    reader.link.rdma_refusal = "192.0.2.1 is in none of the source's [rdma] networks";
    export_seal(reader.export);
    ask_connect();
    assert_refused(reader.link.rdma_refusal);
    assert_readable();
}

static void without_a_budget_there_is_no_rdma(void **state)
{
    (void)state;
    reader.link.budget = NULL;
    export_seal(reader.export);
    ask_connect();
    assert_refused("RDMA is off at the source");
    assert_readable();
}

/* No socket of the UNIX domain has a device behind it. */
static void without_a_device_there_is_no_rdma(void **state)
{
    (void)state;
    export_seal(reader.export);
    ask_connect();
    assert_refused(NULL);
    assert_readable();
}

static void private_memory_is_refused(void **state)
{
    RegionSet *regions = &reader.export->memory.regions;

    (void)state;
    for (uint32_t i = 0; i < regions->n; i++)
        regions->regions[i].kind = CLIENT_REGION_PRIVATE;
    ask_connect();
    take_message(PEER_RDMA_CONNECTED);
    assert_int_equal(message.rdma_connected.code, PEER_ERROR_REFUSED);
    assert_non_null(strstr(message.rdma_connected.text, "private"));
}

static void a_pair_is_asked_for_once(void **state)
{
    (void)state;
    ask_connect();
    assert_refused(NULL);
    ask_connect();
    assert_ended();
}

static void a_pair_is_asked_for_first(void **state)
{
    (void)state;
    export_seal(reader.export);
    assert_readable();
    ask_connect();
    assert_ended();
}

static void keys_need_a_pair(void **state)
{
    (void)state;
    export_seal(reader.export);
    ask_keys(0, 0);
    assert_ended();
}

static void keys_come_on_bulk_channels(void **state)
{
    (void)state;
    export_seal(reader.export);
    ask_keys(0, 0);
    assert_ended();
}

static void keys_before_the_seal_end_it(void **state)
{
    (void)state;
    ask_keys(0, 0);
    assert_ended();
    assert_int_equal(atomic_load(&reader.export->rdma_spans), 0);
}

static void keys_after_a_fence_end_it(void **state)
{
    (void)state;
    export_seal(reader.export);
    export_fence(reader.export, "the source ran again");
    ask_keys(0, 0);
    assert_ended();
    assert_int_equal(atomic_load(&reader.export->rdma_spans), 0);
}

/* Nothing is told of a guest that ran while its memory was being pinned. */
static void a_fence_while_it_pins_ends_it(void **state)
{
    (void)state;
    atomic_store(&device.fences, true);
    export_seal(reader.export);
    ask_keys(0, 0);
    assert_ended();
    assert_int_equal(atomic_load(&reader.export->rdma_spans), 0);
}

static void keys_out_of_range_end_it(void **state)
{
    (void)state;
    export_seal(reader.export);
    ask_keys(0, PAGES);
    assert_ended();
    assert_int_equal(tear_down(state), 0);
    assert_int_equal(set_up_connected(state), 0);
    export_seal(reader.export);
    ask_keys(3, 0);
    assert_ended();
}

static void keys_are_told_and_taken_back(void **state)
{
    uint64_t seal = export_seal(reader.export);
    uint32_t id;

    (void)state;
    ask_keys(0, 0);
    take_message(PEER_KEYS);
    assert_int_equal(message.keys.state, PEER_KEYS_SPAN);
    assert_true(message.keys.seal == seal);
    assert_int_equal(message.keys.span.page, 1); /* odd pages have content */
    assert_int_equal(message.keys.span.count, PAGES - 1);
    assert_int_equal(message.keys.span.rkey, 77);
    assert_int_equal(message.keys.next, PAGES);
    assert_int_equal(message.keys.n, PAGES / 2 - 1);
    assert_int_equal(message.keys.zeroes[0].page, 2);
    id = message.keys.span.id;
    assert_int_equal(atomic_load(&device.pinned), 1);
    assert_int_equal(atomic_load(&reader.export->rdma_spans), 1);
    retire(id);
    assert_readable(); /* and the span is gone by then */
    assert_int_equal(atomic_load(&device.pinned), 0);
    ask_keys(2, 0); /* memory of a process */
    take_message(PEER_KEYS);
    assert_int_equal(message.keys.state, PEER_KEYS_NONE);
    retire(id);
    assert_ended();
}

static void keys_are_told_once(void **state)
{
    (void)state;
    export_seal(reader.export);
    ask_keys(0, 0);
    take_message(PEER_KEYS);
    assert_int_equal(message.keys.state, PEER_KEYS_SPAN);
    ask_keys(0, 17);
    assert_ended();
    assert_int_equal(atomic_load(&reader.export->rdma_spans), 1);
}

static bool nothing_is_pinned_soon(void)
{
    for (unsigned i = 0; i < 5000 && atomic_load(&device.pinned) > 0; i++)
        usleep(1000);
    return atomic_load(&device.pinned) == 0;
}

/* A destination that never hangs up keeps nothing of a guest that runs again. */
static void a_fence_unpins_and_answers_on(void **state)
{
    PeerReadItem item = {.cookie = 1, .page = 1, .count = 1};
    ExportRdmaReport report;

    (void)state;
    export_seal(reader.export);
    ask_keys(0, 0);
    take_message(PEER_KEYS);
    assert_int_equal(atomic_load(&device.pinned), 1);
    export_fence(reader.export, "the source ran again");
    assert_true(nothing_is_pinned_soon());
    reader_ask(&item, 1);
    reader_assert_error(PEER_ERROR_FENCED);
    retire(message.keys.span.id); /* which it sent before it knew */
    reader_ask(&item, 1);
    reader_assert_error(PEER_ERROR_FENCED);
    export_rdma_report(reader.export, &report);
    assert_int_equal(report.pairs, 0);
    assert_string_equal(report.device, "");
}

/* The scan reads to where pages wait to be sent. */
static void pages_that_wait_keep_their_content(void **state)
{
    PeerReadItem item = {.cookie = 1, .page = 1, .count = 3};
    ssize_t first, second;

    (void)state;
    export_seal(reader.export);
    first = peer_read_encode(SESSION, GENERATION, &item, 1, reader.frame, sizeof reader.frame);
    assert_true(first > 0);
    memset(&message, 0, sizeof message);
    message.type = PEER_KEYS_REQUEST;
    message.session = SESSION;
    message.generation = GENERATION;
    message.keys_request.region = 1;
    second =
        peer_message_encode(&message, reader.frame + first, sizeof reader.frame - (size_t)first);
    assert_true(second > 0);
    reader_send((size_t)(first + second));
    reader_take_item(&item);
    take_message(PEER_KEYS);
    assert_int_equal(message.keys.state, PEER_KEYS_SPAN);
    assert_int_equal(message.keys.span.page, 1);
    assert_int_equal(message.keys.span.count, 1);
}

int main(void)
{
#define TEST(name)      cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define CONNECTED(name) cmocka_unit_test_setup_teardown(name, set_up_connected, tear_down)
    const struct CMUnitTest tests[] = {
        CONNECTED(who_does_not_know_rdma_may_not_speak_of_it),
        TEST(a_refused_destination_reads_as_before),
        TEST(without_a_budget_there_is_no_rdma),
        TEST(without_a_device_there_is_no_rdma),
        TEST(private_memory_is_refused),
        TEST(a_pair_is_asked_for_once),
        TEST(a_pair_is_asked_for_first),
        TEST(keys_need_a_pair),
        cmocka_unit_test_setup_teardown(keys_come_on_bulk_channels, set_up_urgent, tear_down),
        CONNECTED(keys_before_the_seal_end_it),
        CONNECTED(keys_after_a_fence_end_it),
        CONNECTED(a_fence_while_it_pins_ends_it),
        CONNECTED(keys_out_of_range_end_it),
        CONNECTED(keys_are_told_and_taken_back),
        CONNECTED(keys_are_told_once),
        CONNECTED(a_fence_unpins_and_answers_on),
        CONNECTED(pages_that_wait_keep_their_content),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
