/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The stream's window over simulated links: a first-in, first-out queue in front of a link of some rate
 * and length.  What is looked at is what the link was left idle, and how long the queue became.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/fault/pace.h"

enum { REQUESTS = 8192, PAGE = 4096 };

#define MIB    (UINT64_C(1) << 20)
#define US     UINT64_C(1000)
#define MS     UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)
#define WIRE   UINT64_C(1250000000) /* bytes/s */

typedef struct Request {
    uint64_t sent_ns, begins_ns, ends_ns, bytes, queued_ns;
} Request;

typedef struct Link {
    uint64_t bytes_per_s;
    uint64_t rtt_ns;
    uint64_t jitter_ns; /* a request takes up to so much longer, one in four of them */
    uint64_t free_ns;   /* when the last byte queued leaves */
    uint64_t urgent_ns; /* what faults are said to take */
    uint64_t burst;     /* bytes that pass at WIRE speed after a pause (a token bucket); 0: none */
    uint64_t tokens;
    Request requests[REQUESTS];
    unsigned first, n;
    uint64_t in_flight;
    uint64_t random;
    uint64_t now_ns;
    /* Since measure() */
    uint64_t delivered, queue_sum, queue_most, answers;
} Link;

static uint64_t random_below(Link *link, uint64_t n)
{
    link->random = link->random * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (link->random >> 33) % n;
}

static uint64_t passing_ns(Link *link, uint64_t starts, uint64_t bytes)
{
    uint64_t idle = starts - link->free_ns;
    uint64_t fast;

    if (link->burst == 0)
        return bytes * SECOND / link->bytes_per_s;
    link->tokens += idle > SECOND ? link->burst : idle * link->bytes_per_s / SECOND;
    link->tokens = link->tokens < link->burst ? link->tokens : link->burst;
    fast = bytes < link->tokens ? bytes : link->tokens;
    link->tokens -= fast;
    return fast * SECOND / WIRE + (bytes - fast) * SECOND / link->bytes_per_s;
}

static void send_request(Link *link, uint64_t bytes)
{
    Request *request = &link->requests[(link->first + link->n++) % REQUESTS];
    uint64_t arrives = link->now_ns + link->rtt_ns / 2;
    uint64_t starts = link->free_ns > arrives ? link->free_ns : arrives;

    assert_true(link->n < REQUESTS);
    *request = (Request){.sent_ns = link->now_ns,
                         .bytes = bytes,
                         .queued_ns = link->free_ns > arrives ? starts - arrives : 0};
    if (link->jitter_ns && random_below(link, 4) == 0)
        starts += random_below(link, link->jitter_ns);
    link->free_ns = starts + passing_ns(link, starts, bytes);
    request->begins_ns = starts + PAGE * SECOND / link->bytes_per_s + link->rtt_ns / 2;
    request->ends_ns = link->free_ns + link->rtt_ns / 2;
    link->in_flight += bytes;
}

static void fill(Link *link, const Pace *pace)
{
    while (pace_may_send(pace, link->in_flight))
        send_request(link, pace_chunk(pace));
}

static void answered(Link *link, Pace *pace, const Request *request)
{
    PaceSample sample = {
        .sent_ns = request->sent_ns,
        .bytes = request->bytes,
        .in_flight = link->in_flight,
        .urgent_ns = link->urgent_ns,
    };

    link->answers++;
    link->queue_sum += request->queued_ns;
    if (request->queued_ns > link->queue_most)
        link->queue_most = request->queued_ns;
    pace_answered(pace, &sample, link->now_ns);
}

/* Answers come in order, each begins before it ends. */
static void run(Link *link, Pace *pace, uint64_t duration_ns)
{
    uint64_t end = link->now_ns + duration_ns;

    link->delivered = link->queue_sum = link->queue_most = link->answers = 0;
    while (link->now_ns < end) {
        Request request;

        fill(link, pace);
        request = link->requests[link->first];
        link->now_ns = request.begins_ns > link->now_ns ? request.begins_ns : link->now_ns;
        answered(link, pace, &request);
        link->now_ns = request.ends_ns;
        link->first = (link->first + 1) % REQUESTS;
        link->n--;
        link->in_flight -= request.bytes;
        link->delivered += request.bytes;
    }
}

static Link *new_link(uint64_t bytes_per_s, uint64_t rtt_ns)
{
    Link *link = calloc(1, sizeof *link);

    assert_non_null(link);
    link->bytes_per_s = bytes_per_s;
    link->rtt_ns = rtt_ns;
    link->now_ns = SECOND;
    return link;
}

static double share(const Link *link, uint64_t duration_ns)
{
    return (double)link->delivered * 1e9 / (double)duration_ns / (double)link->bytes_per_s;
}

static void check_link(uint64_t bytes_per_s, uint64_t rtt_ns, uint64_t jitter_ns, double least,
                       uint64_t queue_mean_ns)
{
    Link *link = new_link(bytes_per_s, rtt_ns);
    Pace pace;
    double mean;

    link->jitter_ns = jitter_ns;
    pace_init(&pace, 64 * MIB, 256 << 10, link->now_ns);
    run(link, &pace, SECOND);
    run(link, &pace, 10 * SECOND);
    mean = (double)link->queue_sum / (double)link->answers;
    print_message(
        "%10.0f kB/s, %6.0f us: %3.0f %% of it, window %5.0f KiB, queue %.0f us, at most %.0f\n",
        (double)bytes_per_s / 1e3, (double)rtt_ns / 1e3, 100 * share(link, 10 * SECOND),
        (double)pace.window / 1024, mean / 1e3, (double)link->queue_most / 1e3);
    assert_true(share(link, 10 * SECOND) >= least);
    assert_true(mean <= (double)queue_mean_ns);
    free(link);
}

static void a_link_is_kept_busy_by_a_short_queue(void **state)
{
    (void)state;
    /* 16 KiB, the smallest request, take 1.3 ms on the slowest of them. */
    check_link(12500000, 50 * US, 0, 0.9, 3 * MS);
    check_link(12500000, 5 * MS, 0, 0.9, 3 * MS);
    check_link(125000000, 50 * US, 0, 0.9, 800 * US);
    check_link(125000000, 200 * US, 0, 0.9, 800 * US);
    check_link(125000000, 20 * MS, 0, 0.85, 10 * MS);
    /* Fast ones: what passes in 1 ms, and no more. */
    check_link(1250000000, 50 * US, 0, 0.9, 1600 * US);
    check_link(1250000000, 2 * MS, 0, 0.85, 2 * MS);
    check_link(1250000000, 20 * MS, 0, 0.8, 10 * MS);
    check_link(3000000000, 50 * US, 0, 0.9, 1200 * US);
}

static void a_busy_host_costs_little(void **state)
{
    (void)state;
    check_link(125000000, 100 * US, 100 * US, 0.8, 1000 * US);
    check_link(3000000000, 60 * US, 20 * US, 0.8, 1200 * US);
}

/* The mean queue while faults are said to take so long. */
static double queue_with_faults(uint64_t urgent_ns)
{
    Link *link = new_link(1250000000, 50 * US);
    Pace pace;
    double mean;

    pace_init(&pace, 64 * MIB, 256 << 10, link->now_ns);
    link->urgent_ns = 100 * US;
    run(link, &pace, SECOND);
    link->urgent_ns = urgent_ns;
    run(link, &pace, SECOND);
    assert_true(share(link, SECOND) >= 0.8);
    mean = (double)link->queue_sum / (double)link->answers;
    free(link);
    return mean;
}

static void slow_faults_shorten_the_queue(void **state)
{
    double calm = queue_with_faults(100 * US), slow = queue_with_faults(2 * MS);

    (void)state;
    assert_true(slow < calm * 3 / 4);
}

static void a_faster_link_is_found_and_a_slower_one(void **state)
{
    Link *link = new_link(125000000, 100 * US);
    Pace pace;

    (void)state;
    pace_init(&pace, 64 * MIB, 256 << 10, link->now_ns);
    run(link, &pace, 2 * SECOND);
    link->bytes_per_s = 1250000000;
    run(link, &pace, SECOND);
    run(link, &pace, 2 * SECOND);
    assert_true(share(link, 2 * SECOND) >= 0.9);
    link->bytes_per_s = 125000000;
    run(link, &pace, 3 * SECOND);
    run(link, &pace, 2 * SECOND);
    assert_true(share(link, 2 * SECOND) >= 0.9);
    assert_true(link->queue_sum / link->answers <= MS);
    free(link);
}

static void a_longer_way_is_learnt(void **state)
{
    Link *link = new_link(125000000, 100 * US);
    Pace pace;

    (void)state;
    pace_init(&pace, 64 * MIB, 256 << 10, link->now_ns);
    run(link, &pace, 2 * SECOND);
    link->rtt_ns = 10 * MS;
    run(link, &pace, 10 * SECOND); /* the old base is forgotten after two periods */
    run(link, &pace, 5 * SECOND);
    assert_true(share(link, 5 * SECOND) >= 0.8);
    free(link);
}

static void the_window_keeps_its_bounds(void **state)
{
    Link *link = new_link(UINT64_C(10000000000), 20 * MS);
    Pace pace;

    (void)state;
    pace_init(&pace, 2 * MIB, 64 << 10, link->now_ns);
    for (int i = 0; i < 100; i++) {
        run(link, &pace, 100 * MS);
        assert_in_range(pace.window, 32 << 10, 2 * MIB);
        assert_in_range(pace_chunk(&pace), 16 << 10, 64 << 10);
        assert_in_range(link->in_flight, 0, 2 * MIB + (64 << 10));
    }
    free(link);
    link = new_link(UINT64_C(10000000000), 50 * US);
    pace_init(&pace, 65536, 4096, link->now_ns); /* the least that may be configured */
    run(link, &pace, SECOND);
    assert_int_equal(pace_chunk(&pace), 4096);
    assert_true(pace_may_send(&pace, 0));
    assert_false(pace_may_send(&pace, 65536));
    free(link);
}

/* A stream that has nothing to ask for, or may not, learns nothing about the link from that. */
static void an_idle_window_does_not_grow(void **state)
{
    uint64_t now = SECOND;
    Pace pace;

    (void)state;
    pace_init(&pace, 64 * MIB, 256 << 10, now);
    for (int i = 0; i < 10000; i++) {
        PaceSample sample = {.sent_ns = now, .bytes = 65536, .in_flight = 65536};
        now += 100 * US;
        pace_answered(&pace, &sample, now);
        now += 100 * US;
    }
    assert_in_range(pace.window, 32 << 10, 256 << 10);
}

/* What passes at once after a pause says nothing about the link: no window is made for it. */
static void a_shaper_s_burst_is_not_its_rate(void **state)
{
    Link *link = new_link(125000000, 150 * US);
    Pace pace;

    (void)state;
    link->burst = link->tokens = 64 << 10;
    link->jitter_ns = 300 * US;
    pace_init(&pace, 64 * MIB, 256 << 10, link->now_ns);
    run(link, &pace, SECOND);
    for (unsigned i = 0; i < 20; i++) {
        run(link, &pace, SECOND / 2);
        assert_true(link->queue_most < 3 * MS);
        assert_true(share(link, SECOND / 2) > 0.85);
        link->now_ns += 2 * MS; /* nothing to do: tokens gather */
    }
    free(link);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_link_is_kept_busy_by_a_short_queue),
        cmocka_unit_test(a_busy_host_costs_little),
        cmocka_unit_test(slow_faults_shorten_the_queue),
        cmocka_unit_test(a_faster_link_is_found_and_a_slower_one),
        cmocka_unit_test(a_longer_way_is_learnt),
        cmocka_unit_test(the_window_keeps_its_bounds),
        cmocka_unit_test(a_shaper_s_burst_is_not_its_rate),
        cmocka_unit_test(an_idle_window_does_not_grow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
