/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/fake_pair.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { REGION_SHIFT = 40 }; /* in what the device knows a page by */

FakePair fake;

struct RdmaPair {
    int events, teller; /* a pipe's ends */
    bool armed;
    RdmaRead posted[FAKE_DEPTH];
    unsigned n_posted;
    RdmaCompletion complete[FAKE_DEPTH];
    unsigned n_complete;
};

static RdmaPair pair_of_all;

struct RdmaMemory {
    uint8_t *memory;
    size_t length;
};

static RdmaMemory staging_of_all;

/* --- what a lane uses ------------------------------------------------------------------------ */

RdmaMemory *rdma_memory_new(RdmaDevice *device, void *memory, size_t length, RdmaAccess access,
                            int *ret_error)
{
    (void)device;
    (void)ret_error;
    assert_int_equal(access, RDMA_ACCESS_STAGE);
    staging_of_all = (RdmaMemory){.memory = memory, .length = length};
    return &staging_of_all;
}

void rdma_memory_free(RdmaMemory *memory)
{
    assert_false(fake.there); /* it might write there */
    memory->memory = NULL;
}

uint32_t rdma_memory_lkey(const RdmaMemory *memory)
{
    (void)memory;
    return FAKE_LKEY;
}

void rdma_memory_hint(uint64_t size, char *ret_text)
{
    (void)size;
    ret_text[0] = '\0';
}

RdmaPair *rdma_pair_new(RdmaDevice *device, unsigned depth, char *ret_text)
{
    int ends[2];

    (void)device;
    ret_text[0] = '\0';
    assert_false(fake.there);
    assert_true(depth <= FAKE_DEPTH);
    assert_int_equal(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
    pair_of_all = (RdmaPair){.events = ends[0], .teller = ends[1]};
    fake = (FakePair){.there = true, .depth = depth, .fail_at = -1};
    return &pair_of_all;
}

void rdma_pair_free(RdmaPair *pair)
{
    assert_true(fake.there);
    assert_false(channel.completing.busy); /* on its file */
    assert_false(channel.handing);         /* what it READ */
    fake.there = false;
    fake.broken = true;
    fake.downs_at_free = downs;
    close(pair->events);
    if (pair->teller >= 0)
        close(pair->teller);
}

void rdma_pair_break(RdmaPair *pair)
{
    (void)pair;
    assert_true(fake.there);
    fake.broken = true;
}

static void tell(RdmaPair *pair, const RdmaRead *read, bool failed)
{
    uint64_t one = 1;

    pair->complete[pair->n_complete++] = (RdmaCompletion){
        .cookie = read->cookie + (fake.forge ? fake.depth : 0),
        .failed = failed,
        .reason = failed ? "the other end does not answer" : NULL,
    };
    fake.forge = false;
    if (pair->armed && !fake.mute)
        assert_int_equal(write(pair->teller, &one, sizeof one), sizeof one);
    pair->armed = false;
}

static void execute(RdmaPair *pair, const RdmaRead *read)
{
    uint32_t region = (uint32_t)(read->from >> REGION_SHIFT);
    uint64_t offset = read->from & ((UINT64_C(1) << REGION_SHIFT) - 1);
    bool failed = fake.fail_at >= 0 && fake.fail_at-- == 0;

    if (!failed)
        fill_pages(region, offset / page_sizes[region], read->length / page_sizes[region],
                   read->to);
    if (failed || read->last)
        tell(pair, read, failed);
}

static void check_place(const RdmaRead *read)
{
    uint8_t *to = read->to;

    assert_int_equal(read->rkey, FAKE_RKEY);
    assert_true(read->length > 0);
    if (read->lkey == FAKE_LKEY) {
        assert_true(to >= staging_of_all.memory &&
                    to + read->length <= staging_of_all.memory + staging_of_all.length);
    } else {
        assert_int_equal(read->lkey, FAKE_LANDING_LKEY);
        assert_true(to >= landing && to + read->length <= landing + PAGES * PAGE);
    }
    /* Nothing that is under way, or complete and not told, lies there; the latter the sink notices. */
    for (unsigned i = 0; i < pair_of_all.n_posted; i++) {
        const RdmaRead *other = &pair_of_all.posted[i];
        assert_true((uint8_t *)other->to + other->length <= to ||
                    to + read->length <= (uint8_t *)other->to);
    }
}

int rdma_pair_read(RdmaPair *pair, const RdmaRead *read)
{
    int error = fake.refuse;

    assert_true(fake.there && !fake.broken);
    fake.refuse = 0;
    if (error)
        return -error;
    assert_true(pair->n_posted < fake.depth);
    check_place(read);
    fake.last = *read;
    fake.posts++;
    fake.told += read->last;
    pair->posted[pair->n_posted++] = *read;
    if (fake.at_once)
        fake_execute(1);
    return 0;
}

int rdma_pair_poll(RdmaPair *pair, RdmaCompletion *ret_completions, unsigned max)
{
    unsigned n = pair->n_complete < max ? pair->n_complete : max;

    assert_true(fake.there);
    memcpy(ret_completions, pair->complete, n * sizeof *ret_completions);
    pair->n_complete -= n;
    memmove(pair->complete, pair->complete + n, pair->n_complete * sizeof *ret_completions);
    return (int)n;
}

int rdma_pair_fd(const RdmaPair *pair)
{
    return pair->events;
}

int rdma_pair_arm(RdmaPair *pair)
{
    if (fake.before_arm)
        fake_execute(UINT32_MAX);
    fake.arms++;
    pair->armed = true;
    return 0;
}

void rdma_pair_take_events(RdmaPair *pair)
{
    uint64_t n;

    while (read(pair->events, &n, sizeof n) > 0)
        ;
}

/* --- what a test uses ------------------------------------------------------------------------ */

unsigned fake_execute(unsigned n)
{
    RdmaPair *pair = &pair_of_all;
    unsigned done;

    for (done = 0; done < n && pair->n_posted > 0; done++) {
        RdmaRead read = pair->posted[0];

        pair->n_posted--;
        memmove(pair->posted, pair->posted + 1, pair->n_posted * sizeof pair->posted[0]);
        execute(pair, &read);
    }
    return done;
}

void fake_vanish(void)
{
    close(pair_of_all.teller);
    pair_of_all.teller = -1;
}

unsigned fake_posted(void)
{
    return pair_of_all.n_posted;
}

void fake_lane(size_t staging, unsigned depth)
{
    char text[LIMIT_TEXT + 1];

    next_lane = rdma_lane_new(NULL, staging, depth, text);
    assert_non_null(next_lane);
}

uint32_t fake_source(uint32_t region, uint64_t page, uint32_t count, FetchSource *ret_source)
{
    *ret_source = (FetchSource){
        .address = ((uint64_t)region << REGION_SHIFT) + page * page_sizes[region],
        .rkey = FAKE_RKEY,
    };
    return count;
}
