/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Exactly once: many threads fault on overlapping pages, several resolvers and the stream race for
 * them, and every page is read at the source once, comes whole, and wakes everybody who waited; also
 * while signals interrupt whatever the daemon's threads do.
 *
 *   stress_once                the tests
 *   stress_once crowd ROUNDS   one of them with so many rounds, and a line of JSON about it
 */
#include <dirent.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/stress/world.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

enum {
    ROUNDS = SANITIZED ? 2 : 4,
    CROWD_PAGES = SANITIZED ? 200 : 2000,
    STUCK_S = 60, /* a thread that has not come back by then was not woken */
    THREADS_MAX = 64,
    SIGNALLED_PAGES = SANITIZED ? 2000 : 20000,
    PELT_PAUSE_US = 20,
};

typedef struct Thread {
    const World *world;
    pthread_t thread;
    unsigned index;
    uint64_t page;    /* atomic: the one it is at, for the watchdog's message */
    uint64_t visited; /* atomic, by the watchdog too */
    uint64_t rounds;  /* of a crowd */
    pthread_barrier_t *barrier;
} Thread;

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void fail_at(uint64_t page, unsigned word, uint64_t seen)
{
    fprintf(stderr, "page %lu word %u is %016lx\n", (unsigned long)page, word, (unsigned long)seen);
    abort();
}

/* The first read is where the fault waits. */
static void visit(Thread *self, uint64_t page, unsigned first_word)
{
    const uint64_t *words = world_words(self->world, page);
    bool filled = world_is_filled(self->world, page);

    __atomic_store_n(&self->page, page, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < WORLD_WORDS; i++) {
        unsigned word = (first_word + i) % WORLD_WORDS;
        uint64_t seen = __atomic_load_n(&words[word], __ATOMIC_RELAXED);
        if (seen != (filled ? world_word(page, word) : 0))
            fail_at(page, word, seen);
    }
    __atomic_store_n(&self->visited, self->visited + 1, __ATOMIC_RELAXED);
}

static void *roam(void *argument)
{
    Thread *self = argument;
    const WorldShape *shape = &self->world->shape;
    uint64_t state = (self->index + 1) * UINT64_C(0x2545f4914f6cdd1d);

    /* Few enough places that threads often meet, some holes among them. */
    for (uint64_t i = 0; i < shape->n_pages / shape->stride; i++) {
        uint64_t random = next_random(&state);
        uint64_t page = random % (shape->n_pages / shape->stride) * shape->stride;
        if (random >> 61 == 0 && shape->stride > 1)
            page++;
        visit(self, page, (unsigned)(random >> 40) % WORLD_WORDS);
    }
    return NULL;
}

static void *crowd(void *argument)
{
    Thread *self = argument;
    uint64_t stride = self->world->shape.stride;

    for (uint64_t i = 0; i < self->rounds; i++) {
        pthread_barrier_wait(self->barrier);
        visit(self, i * stride, self->index * 8);
    }
    return NULL;
}

static void start(Thread *threads, unsigned n, const World *world, void *(*function)(void *),
                  uint64_t rounds, pthread_barrier_t *barrier)
{
    for (unsigned i = 0; i < n; i++) {
        threads[i] = (Thread){.world = world, .index = i, .rounds = rounds, .barrier = barrier};
        assert_int_equal(pthread_create(&threads[i].thread, NULL, function, &threads[i]), 0);
    }
}

/* A thread that visits nothing for so long was not woken. */
static void join_one(const Thread *thread)
{
    uint64_t visited;
    struct timespec deadline;

    do {
        visited = __atomic_load_n(&thread->visited, __ATOMIC_RELAXED);
        clock_gettime(CLOCK_REALTIME, &deadline);
        deadline.tv_sec += STUCK_S;
        if (pthread_timedjoin_np(thread->thread, NULL, &deadline) == 0)
            return;
    } while (__atomic_load_n(&thread->visited, __ATOMIC_RELAXED) != visited);
    uint64_t page = __atomic_load_n(&thread->page, __ATOMIC_RELAXED);
    fprintf(stderr, "thread %u hangs at page %lu, which was read %u times\n", thread->index,
            (unsigned long)page, world_reads(thread->world, page));
    abort();
}

static uint64_t join(Thread *threads, unsigned n)
{
    uint64_t visited = 0;

    for (unsigned i = 0; i < n; i++) {
        join_one(&threads[i]);
        visited += threads[i].visited;
    }
    return visited;
}

/* Filled pages once; holes at most once, for they are asked for until the map is known. */
static void check_reads(const World *world)
{
    for (uint64_t page = 0; page < world->shape.n_pages; page++) {
        unsigned reads = world_reads(world, page);
        if (world_is_filled(world, page) ? reads != 1 : reads > 1)
            fail_msg("page %lu was read %u times", (unsigned long)page, reads);
    }
}

static void roam_over(bool shared, bool sealed, ImportDispatch dispatch)
{
    const WorldShape shape = {
        .shared = shared,
        .sealed = sealed,
        .n_pages = sealed ? 32768 : 65536, /* 256 MiB: four shards */
        .stride = sealed ? 2 : 8,          /* what is half full is allocated ahead */
        .resolvers = 4,
        .dispatch = dispatch,
        .shards = 4,
        .bulk_channels = 2,
        .around = 16384,
    };
    Thread threads[48];

    for (int round = 0; round < ROUNDS; round++) {
        World *world = world_new(&shape);
        start(threads, 48, world, roam, 0, NULL);
        world_stream(world);
        uint64_t visited = join(threads, 48);
        world_complete(world);
        check_reads(world);
        print_message("%lu visits, %lu pages\n", (unsigned long)visited,
                      (unsigned long)(shape.n_pages / shape.stride));
        world_free(world);
    }
}

/* --- signals ------------------------------------------------------------------------------- */

typedef struct Pelter {
    pthread_t thread;
    _Atomic bool stop;
    uint64_t sent;
} Pelter;

static bool serves_faults(const char *tid)
{
    char path[300], name[16] = "";
    FILE *file;

    snprintf(path, sizeof path, "/proc/self/task/%s/comm", tid);
    file = fopen(path, "re");
    if (!file)
        return false; /* it has ended */
    if (!fgets(name, sizeof name, file))
        name[0] = 0;
    fclose(file);
    return strncmp(name, "resolver-", 9) == 0 || strncmp(name, "stream", 6) == 0;
}

/* The signal that a thread gets when it is to end (daemon/core/thread.c); debuggers and freezers do alike. */
static void pelt_all(Pelter *pelter)
{
    DIR *tasks = opendir("/proc/self/task");
    const struct dirent *task;

    if (!tasks)
        abort();
    while ((task = readdir(tasks)) && !pelter->stop) {
        int tid = atoi(task->d_name);
        if (tid <= 0 || !serves_faults(task->d_name))
            continue;
        for (int i = 0; i < 50 && syscall(SYS_tgkill, getpid(), tid, SIGUSR1) == 0; i++) {
            pelter->sent++;
            usleep(PELT_PAUSE_US);
        }
    }
    closedir(tasks);
}

static void *pelt(void *argument)
{
    Pelter *pelter = argument;

    while (!pelter->stop)
        pelt_all(pelter);
    return NULL;
}

/* --- the tests ----------------------------------------------------------------------------- */

static void threads_and_stream_race_anonymous(void **state)
{
    (void)state;
    roam_over(false, false, IMPORT_DISPATCH_DIRECT);
}

static void threads_and_stream_race_shared(void **state)
{
    (void)state;
    roam_over(true, false, IMPORT_DISPATCH_DIRECT);
}

static void threads_and_stream_race_sealed(void **state)
{
    (void)state;
    roam_over(true, true, IMPORT_DISPATCH_DIRECT);
}

static void threads_and_stream_race_homes(void **state)
{
    (void)state;
    roam_over(true, true, IMPORT_DISPATCH_HOME);
}

static void crowd_on_one_page(ImportDispatch dispatch)
{
    const WorldShape shape = {
        .shared = true,
        .n_pages = 32768,
        .stride = 8,
        .resolvers = 4,
        .dispatch = dispatch,
        .shards = 2,
        .bulk_channels = 1,
        .around = WORLD_PAGE,
    };
    pthread_barrier_t barrier;
    Thread threads[THREADS_MAX];
    World *world = world_new(&shape);

    pthread_barrier_init(&barrier, NULL, THREADS_MAX);
    start(threads, THREADS_MAX, world, crowd, CROWD_PAGES, &barrier);
    assert_int_equal(join(threads, THREADS_MAX), (uint64_t)THREADS_MAX * CROWD_PAGES);
    for (uint64_t i = 0; i < CROWD_PAGES; i++)
        assert_int_equal(world_reads(world, i * shape.stride), 1);
    assert_int_equal(world_reads(world, CROWD_PAGES * shape.stride), 0); /* no stream yet */
    world_stream(world);
    world_complete(world);
    check_reads(world);
    pthread_barrier_destroy(&barrier);
    world_free(world);
}

/* One fault at a time: after each the next is waited for, and there is none yet. */
static void signals_end_nothing(void **state)
{
    const WorldShape shape = {
        .shared = true,
        .n_pages = 32768,
        .stride = 1,
        .resolvers = 1, /* it waits in a read, the others of many in a poll */
        .shards = 2,
        .bulk_channels = 1,
        .around = WORLD_PAGE,
        .stream_delay_ms = 24 * 3600 * 1000,
    };
    pthread_barrier_t barrier;
    Pelter pelter = {.stop = false};
    Thread thread;
    World *world = world_new(&shape);

    (void)state;
    pthread_barrier_init(&barrier, NULL, 1);
    assert_int_equal(pthread_create(&pelter.thread, NULL, pelt, &pelter), 0);
    start(&thread, 1, world, crowd, SIGNALLED_PAGES, &barrier);
    assert_int_equal(join(&thread, 1), SIGNALLED_PAGES);
    world_stream(world);
    world_complete(world);
    pelter.stop = true;
    pthread_join(pelter.thread, NULL);
    print_message("%lu signals\n", (unsigned long)pelter.sent);
    assert_true(pelter.sent > SIGNALLED_PAGES / 10);
    check_reads(world);
    pthread_barrier_destroy(&barrier);
    world_free(world);
}

static void a_crowd_on_one_page(void **state)
{
    (void)state;
    crowd_on_one_page(IMPORT_DISPATCH_DIRECT);
}

static void a_crowd_on_one_page_homes(void **state)
{
    (void)state;
    crowd_on_one_page(IMPORT_DISPATCH_HOME);
}

/* For the benchmark: all pages of the rounds are neighbours, so that many rounds fit in. */
static int long_crowd(uint64_t rounds)
{
    const WorldShape shape = {
        .shared = true,
        .n_pages = rounds + 1,
        .stride = 1,
        .resolvers = 2,
        .shards = 2,
        .bulk_channels = 1,
        .around = WORLD_PAGE,
        .stream_delay_ms = 24 * 3600 * 1000, /* not before it is told */
    };
    pthread_barrier_t barrier;
    Thread threads[THREADS_MAX];
    World *world = world_new(&shape);
    time_t begin = time(NULL);
    unsigned most = 0, least = UINT_MAX;

    pthread_barrier_init(&barrier, NULL, THREADS_MAX);
    start(threads, THREADS_MAX, world, crowd, rounds, &barrier);
    uint64_t visits = join(threads, THREADS_MAX);
    for (uint64_t i = 0; i < rounds; i++) {
        unsigned reads = world_reads(world, i);
        most = reads > most ? reads : most;
        least = reads < least ? reads : least;
    }
    printf("{\"rounds\": %lu, \"threads\": %d, \"visits\": %lu, \"fetches_most\": %u, "
           "\"fetches_least\": %u, \"seconds\": %ld}\n",
           rounds, THREADS_MAX, visits, most, least, (long)(time(NULL) - begin));
    world_stream(world);
    world_complete(world);
    pthread_barrier_destroy(&barrier);
    world_free(world);
    return most == 1 && least == 1 ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "crowd") == 0 && strtoull(argv[2], NULL, 10) > 0)
        return long_crowd(strtoull(argv[2], NULL, 10));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signals_end_nothing),
        cmocka_unit_test(threads_and_stream_race_anonymous),
        cmocka_unit_test(threads_and_stream_race_shared),
        cmocka_unit_test(threads_and_stream_race_sealed),
        cmocka_unit_test(threads_and_stream_race_homes),
        cmocka_unit_test(a_crowd_on_one_page),
        cmocka_unit_test(a_crowd_on_one_page_homes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
