/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whatever breaks, a READ under way fails within a bound, and after rdma_pair_free() nothing lands.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/rdma/rig.h"

enum { LARGE = 1 << 20, SOON_MS = 1000 };

static void pause_ms(long ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    nanosleep(&time, NULL);
}

static bool untouched(const Rig *rig, size_t first, size_t end)
{
    for (size_t i = first; i < end; i++)
        if (rig->target[i] != RIG_PATTERN)
            return false;
    return true;
}

/* This READ fails with that reason, and within ms; after it the pair takes none. */
static void fails(Rig *rig, const RdmaRead *read, const char *reason, uint64_t ms)
{
    uint64_t start = rig_now_ms();
    RdmaCompletion done;

    assert_int_equal(rdma_pair_read(rig->reader, read), 0);
    assert_true(rig_wait(rig->reader, &done));
    assert_true(rig_now_ms() - start < ms);
    assert_true(done.failed);
    assert_int_equal(done.cookie, read->cookie);
    assert_non_null(strstr(done.reason, reason));
    assert_int_equal(rdma_pair_read(rig->reader, read), -EPIPE);
    assert_true(untouched(rig, 0, RIG_LENGTH));
}

static void a_key_nobody_gave_fails_at_once(void **state)
{
    Rig *rig = *state;
    RdmaRead read = rig_read(rig, 0, RIG_PAGE, 11, true);

    read.rkey ^= 0x5a00;
    fails(rig, &read, "does not allow", SOON_MS);
}

static void beyond_the_span_nothing_is_read(void **state)
{
    Rig *rig = *state;
    RdmaRead read = rig_read(rig, 0, 2 * RIG_PAGE, 12, true);

    read.from = (uintptr_t)rig->source + RIG_LENGTH - RIG_PAGE;
    fails(rig, &read, "does not allow", SOON_MS);
}

static void before_the_span_nothing_is_read(void **state)
{
    Rig *rig = *state;
    RdmaRead read = rig_read(rig, 0, RIG_PAGE, 13, true);

    read.from -= 8;
    fails(rig, &read, "does not allow", SOON_MS);
}

/* A key of memory that another VM's export has, on the same device. */
static void a_key_of_another_domain_is_refused(void **state)
{
    Rig *rig = *state;
    RdmaDevice *other = rig_open(rig, rig->far_socket);
    uint64_t *words = rig_source();
    RdmaRead read = rig_read(rig, 0, RIG_PAGE, 14, true);
    int error = 0;
    RdmaMemory *memory = rdma_memory_new(other, words, RIG_LENGTH, RDMA_ACCESS_EXPORT, &error);

    assert_non_null(memory);
    read.from = (uintptr_t)words;
    read.rkey = rdma_memory_rkey(memory);
    fails(rig, &read, "does not allow", SOON_MS);
    rdma_memory_free(memory);
    rdma_device_unref(other);
    munmap(words, RIG_LENGTH);
}

static void what_was_unpinned_is_not_read(void **state)
{
    Rig *rig = *state;
    RdmaRead read = rig_read(rig, 0, RIG_PAGE, 15, true);

    rdma_memory_free(rig->exported);
    rig->exported = NULL;
    fails(rig, &read, "does not allow", SOON_MS);
}

/* Where READs land the other end may read nothing. */
static void the_reader_answers_nothing(void **state)
{
    Rig *rig = *state;
    RdmaPair *reader = rig_pair(rig->near, RIG_DEPTH), *other = rig_pair(rig->far, RIG_DEPTH);
    RdmaRead read = rig_read(rig, 0, RIG_PAGE, 16, true);
    RdmaCompletion done;

    rig_connect(reader, other);
    assert_int_equal(rdma_pair_read(reader, &read), 0);
    assert_true(rig_wait(reader, &done));
    assert_true(done.failed);
    assert_true(untouched(rig, 0, RIG_LENGTH));
    rdma_pair_free(reader);
    rdma_pair_free(other);
}

/* The first that fails among those whose completion was not asked for is told all the same. */
static void a_failure_in_between_is_told(void **state)
{
    Rig *rig = *state;
    RdmaCompletion done[8];
    int n = 0;

    for (uint64_t i = 0; i < 4; i++) {
        RdmaRead read = rig_read(rig, i * RIG_PAGE, RIG_PAGE, 20 + i, i == 3);

        if (i == 1)
            read.rkey ^= 0x5a00;
        if (rdma_pair_read(rig->reader, &read))
            assert_true(i > 1);
    }
    assert_true(rig_wait(rig->reader, &done[0]));
    while (n < 7 && rig_wait(rig->reader, &done[n + 1]) && done[++n].cookie != 23)
        ;
    assert_int_equal(done[0].cookie, 21);
    assert_true(done[0].failed);
    assert_true(done[n].failed);
    assert_int_equal(done[n].cookie, 23);
    assert_true(rig_arrived(rig, 0, RIG_PAGE));
    assert_true(untouched(rig, RIG_PAGE, RIG_LENGTH));
}

/* Posts as many as there is room for, of a MiB each; how many. */
static unsigned post_large(Rig *rig)
{
    unsigned n = 0;

    for (; n < RIG_LENGTH / LARGE; n++) {
        RdmaRead read = rig_read(rig, (uint64_t)n * LARGE, LARGE, n, true);

        if (rdma_pair_read(rig->reader, &read))
            break;
    }
    return n;
}

/* Takes n completions: those before the first failure are right, none after it is a success. */
static unsigned take_all(Rig *rig, unsigned n, uint64_t *ret_ms)
{
    uint64_t start = rig_now_ms();
    unsigned failed = 0;

    for (unsigned i = 0; i < n; i++) {
        RdmaCompletion done;

        assert_true(rig_wait(rig->reader, &done));
        assert_int_equal(done.cookie, i);
        assert_true(done.failed || failed == 0);
        if (!done.failed)
            assert_true(rig_arrived(rig, (uint64_t)i * LARGE, LARGE));
        failed += done.failed;
    }
    *ret_ms = rig_now_ms() - start;
    return failed;
}

/* New ends in the place of those that broke. */
static void renew(Rig *rig)
{
    rdma_pair_free(rig->reader);
    rig->reader = NULL;
    rdma_pair_free(rig->answerer);
    rig->answerer = NULL;
    rig->reader = rig_pair(rig->near, RIG_DEPTH);
    rig->answerer = rig_pair(rig->far, 0);
    rig_connect(rig->reader, rig->answerer);
}

static void *break_it(void *pair)
{
    pause_ms(2);
    rdma_pair_break(pair);
    return NULL;
}

/* Breaks that pair while READs are under way, from another thread; how long the failures took. */
static uint64_t break_under_way(Rig *rig, bool own)
{
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        unsigned posted, failed;
        uint64_t ms;

        pthread_create(&thread, NULL, break_it, own ? rig->reader : rig->answerer);
        posted = post_large(rig);
        failed = take_all(rig, posted, &ms);
        pthread_join(thread, NULL);
        if (failed)
            return ms;
        /* All was done before: once more, now that one end is new. */
        renew(rig);
    }
    fail_msg("no READ was under way when the pair was broken");
    return 0;
}

static void broken_by_the_source_reads_fail_in_time(void **state)
{
    assert_true(break_under_way(*state, false) < RIG_BOUND_MS);
}

static void broken_here_reads_fail_at_once(void **state)
{
    assert_true(break_under_way(*state, true) < SOON_MS);
}

/* After the source broke it nothing is read, not even what nobody has unpinned yet. */
static void after_a_break_nothing_is_read(void **state)
{
    Rig *rig = *state;
    RdmaRead read = rig_read(rig, 0, RIG_PAGE, 30, true);

    rdma_pair_break(rig->answerer);
    rdma_pair_break(rig->answerer);
    fails(rig, &read, "does not answer", RIG_BOUND_MS);
}

static void a_broken_pair_takes_nothing(void **state)
{
    Rig *rig = *state;
    RdmaPair *pair = rig_pair(rig->near, 4);
    RdmaRead read = rig_read(rig, 0, RIG_PAGE, 31, true);
    char text[LIMIT_TEXT + 1] = "";
    PeerRdmaEnd end;

    assert_int_equal(rdma_pair_read(pair, &read), -EPIPE); /* not connected yet */
    rdma_pair_break(pair);
    rdma_pair_describe(rig->answerer, &end);
    assert_int_equal(rdma_pair_connect(pair, &end, text), -EPIPE);
    assert_string_not_equal(text, "");
    assert_int_equal(rdma_pair_read(pair, &read), -EPIPE);
    rdma_pair_free(pair);
    rdma_pair_break(rig->reader);
    assert_int_equal(rdma_pair_read(rig->reader, &read), -EPIPE);
    assert_true(untouched(rig, 0, RIG_LENGTH));
}

/* Soft RoCE READs from its own host within the post: so it takes another thread to cut that short. */
typedef struct Breaker {
    RdmaPair *pair;
    atomic_uint posted;
} Breaker;

static void *break_soon(void *opaque)
{
    Breaker *breaker = opaque;

    while (atomic_load(&breaker->posted) < 3)
        sched_yield();
    pause_ms(2);
    rdma_pair_break(breaker->pair);
    return NULL;
}

/* READs the memory up to its end again and again until the pair is broken; how many READs there were. */
static unsigned post_until_broken(Rig *rig)
{
    Breaker breaker = {.pair = rig->reader};
    uint64_t end = rig_now_ms() + RIG_BOUND_MS;
    RdmaCompletion done;
    pthread_t thread;
    unsigned n = 0;
    int error = 0;

    pthread_create(&thread, NULL, break_soon, &breaker);
    while (error == 0 || error == -EAGAIN) {
        uint64_t offset = n % (RIG_LENGTH / LARGE) * (uint64_t)LARGE;
        RdmaRead read = rig_read(rig, offset, LARGE, n, false);

        assert_true(rig_now_ms() < end);
        memset(rig->target + offset, RIG_PATTERN, LARGE);
        error = rdma_pair_read(rig->reader, &read);
        atomic_store(&breaker.posted, n += error == 0);
        if (error == -EAGAIN && rdma_pair_poll(rig->reader, &done, 1) != 0)
            break;
    }
    pthread_join(thread, NULL);
    return n;
}

/* What was in the middle of landing stays as it is from the end of rdma_pair_free() on. */
static void nothing_lands_after_free(void **state)
{
    Rig *rig = *state;
    unsigned cut_short = 0;

    for (int i = 0; i < 8; i++) {
        unsigned n = post_until_broken(rig);

        rdma_pair_free(rig->reader);
        rig->reader = NULL;
        /* The last one had begun, and did not end. */
        cut_short += !rig_arrived(rig, (n - 1) % (RIG_LENGTH / LARGE) * (uint64_t)LARGE, LARGE);
        memset(rig->target, RIG_PATTERN, RIG_LENGTH);
        pause_ms(50);
        assert_true(untouched(rig, 0, RIG_LENGTH));
        renew(rig);
    }
    assert_true(cut_short > 0);
}

/* READs that wait for an answer, which may still come, do not keep it waiting. */
static void free_gives_up_what_is_under_way(void **state)
{
    Rig *rig = *state;
    RdmaCompletion done;
    uint64_t start;

    rdma_pair_break(rig->answerer);
    for (uint64_t i = 0; i < 4; i++) {
        RdmaRead read = rig_read(rig, i * RIG_PAGE, RIG_PAGE, i, true);

        assert_int_equal(rdma_pair_read(rig->reader, &read), 0);
    }
    assert_int_equal(rdma_pair_poll(rig->reader, &done, 1), 0);
    start = rig_now_ms();
    rdma_pair_free(rig->reader);
    rig->reader = NULL;
    assert_true(rig_now_ms() - start < SOON_MS / 2);
    pause_ms(500);
    assert_true(untouched(rig, 0, RIG_LENGTH));
}

/* Those that asked for no completion do not keep it waiting either. */
static void free_waits_for_no_completion_that_nobody_asked_for(void **state)
{
    Rig *rig = *state;
    uint64_t start;

    for (uint64_t i = 0; i < 3; i++) {
        RdmaRead read = rig_read(rig, i * RIG_PAGE, RIG_PAGE, i, false);

        assert_int_equal(rdma_pair_read(rig->reader, &read), 0);
    }
    pause_ms(20);
    start = rig_now_ms();
    rdma_pair_free(rig->reader);
    rig->reader = NULL;
    assert_true(rig_now_ms() - start < SOON_MS / 2);
}

/* What the child tells of its end. */
typedef struct Told {
    PeerRdmaEnd end;
    uint64_t address;
    uint32_t rkey;
} Told;

/* The far end in a process of its own; never returns. */
static void answer(int socket, int tell)
{
    Rig rig = {.budget = {.most = RIG_BUDGET}};
    RdmaDevice *device = rig_open(&rig, socket);
    RdmaPair *pair = rig_pair(device, 0);
    uint64_t *words = rig_source();
    char text[LIMIT_TEXT + 1];
    int error = 0;
    RdmaMemory *memory = rdma_memory_new(device, words, RIG_LENGTH, RDMA_ACCESS_EXPORT, &error);
    PeerRdmaEnd theirs;
    Told told = {.address = (uintptr_t)words};

    if (!memory)
        _exit(10);
    rdma_pair_describe(pair, &told.end);
    told.rkey = rdma_memory_rkey(memory);
    if (read(tell, &theirs, sizeof theirs) != sizeof theirs ||
        rdma_pair_connect(pair, &theirs, text) || write(tell, &told, sizeof told) != sizeof told)
        _exit(11);
    for (;;)
        pause();
}

static pid_t start_answering(Rig *rig, Told *ret_told)
{
    PeerRdmaEnd own;
    char text[LIMIT_TEXT + 1] = "";
    int tell[2];
    pid_t child;

    rdma_pair_describe(rig->reader, &own);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, tell), 0);
    child = fork();
    if (child == 0)
        answer(rig->far_socket, tell[1]);
    close(tell[1]);
    assert_int_equal(write(tell[0], &own, sizeof own), sizeof own);
    assert_int_equal(read(tell[0], ret_told, sizeof *ret_told), sizeof *ret_told);
    close(tell[0]);
    if (rdma_pair_connect(rig->reader, &ret_told->end, text))
        fail_msg("%s", text);
    return child;
}

/* READs from the child until it has been killed for a while: how long after its end the failure came. */
static void a_killed_peer_is_noticed_in_time(void **state)
{
    Rig *rig = *state;
    RdmaCompletion done = {0};
    uint64_t n = 0, killed = 0;
    Told told;
    pid_t child;

    rdma_pair_free(rig->reader);
    rig->reader = rig_pair(rig->near, RIG_DEPTH);
    child = start_answering(rig, &told);
    for (; !done.failed; n++) {
        uint64_t offset = n % (RIG_LENGTH / LARGE) * LARGE;
        RdmaRead read = rig_read(rig, offset, LARGE, n, true);

        read.from = told.address + offset;
        read.rkey = told.rkey;
        assert_int_equal(rdma_pair_read(rig->reader, &read), 0);
        if (n == 3) { /* that one is under way */
            kill(child, SIGKILL);
            killed = rig_now_ms();
        }
        assert_true(rig_wait(rig->reader, &done));
        assert_int_equal(done.cookie, n);
        assert_true(done.failed || rig_arrived(rig, offset, LARGE));
        assert_true(killed == 0 || rig_now_ms() - killed < RIG_BOUND_MS);
    }
    assert_true(killed != 0);
    waitpid(child, NULL, 0);
}

int rig_run_failures(void)
{
#define WITH_RIG(test) cmocka_unit_test_setup_teardown(test, rig_up, rig_down)
    const struct CMUnitTest tests[] = {
        WITH_RIG(a_key_nobody_gave_fails_at_once),
        WITH_RIG(beyond_the_span_nothing_is_read),
        WITH_RIG(before_the_span_nothing_is_read),
        WITH_RIG(a_key_of_another_domain_is_refused),
        WITH_RIG(what_was_unpinned_is_not_read),
        WITH_RIG(the_reader_answers_nothing),
        WITH_RIG(a_failure_in_between_is_told),
        WITH_RIG(broken_by_the_source_reads_fail_in_time),
        WITH_RIG(broken_here_reads_fail_at_once),
        WITH_RIG(after_a_break_nothing_is_read),
        WITH_RIG(a_broken_pair_takes_nothing),
        WITH_RIG(nothing_lands_after_free),
        WITH_RIG(free_gives_up_what_is_under_way),
        WITH_RIG(free_waits_for_no_completion_that_nobody_asked_for),
        WITH_RIG(a_killed_peer_is_noticed_in_time),
    };

    return cmocka_run_group_tests_name("transport_failures", tests, NULL, NULL);
}
