/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hand-overs a second of the fault queue, against queues behind a lock that do the same work.
 *
 *   queue [--rounds N] [--seconds S]      S: of one measurement; prints one JSON object
 *
 *   queue    daemon/core/fault_queue.h; the consumer sleeps on an eventfd, which is written only when
 *            a wake is owed
 *   eventfd  a ring behind a mutex; every push writes the eventfd, the consumer reads it and takes as
 *            many records as it counted
 *   lazy     the same ring; the eventfd is written only when the consumer said that it will sleep
 *
 * flood: 1, 2 and 4 producers push as fast as the ring takes it, and yield when it is full.  single: one
 * producer waits for the answer to each record, so that the consumer always sleeps: what is left there
 * is the wake itself, and it is the same for all.  Designs take turns within a round; each figure is the
 * median over the rounds, each ratio the median of the rounds' own ratios.
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "daemon/core/clock.h"
#include "daemon/core/fault_queue.h"

enum { CAPACITY = 1024, BATCH = 32, PRODUCERS_MAX = 4, ROUNDS_MAX = 101 };

typedef enum Kind { KIND_QUEUE, KIND_EVENTFD, KIND_LAZY, KINDS } Kind;

/* Producers of a shape; 0: one, and each record is answered. */
static const unsigned shapes[] = {1, 2, 4, 0};
enum { SHAPES = sizeof shapes / sizeof *shapes, SHAPE_SINGLE = SHAPES - 1 };

typedef struct Bench {
    Kind kind;
    bool answered;
    FaultQueue queue;
    pthread_mutex_t lock;
    FaultRecord ring[CAPACITY]; /* behind the lock, as head, tail and sleeping are */
    uint64_t head, tail;
    bool sleeping;
    int wake_fd, answer_fd;
    pthread_barrier_t begin;
    _Atomic bool stop, drained;
    _Atomic uint64_t pushed, pushed_sum, writes;
    uint64_t taken, taken_sum, waits;
} Bench;

typedef struct Result {
    double rate;   /* hand-overs a second */
    double writes; /* of the eventfd, by producers, a hand-over */
    double waits;  /* reads of it, by the consumer, a hand-over */
} Result;

static void signal_fd(int fd)
{
    uint64_t one = 1;

    if (write(fd, &one, sizeof one) != sizeof one)
        abort();
}

static uint64_t wait_fd(int fd)
{
    uint64_t count;

    if (read(fd, &count, sizeof count) != sizeof count)
        abort();
    return count;
}

/* --- the designs --------------------------------------------------------------------------- */

static FaultPush push_locked(Bench *bench, const FaultRecord *record)
{
    FaultPush result = FAULT_QUEUE_FULL;

    pthread_mutex_lock(&bench->lock);
    if (bench->tail - bench->head < CAPACITY) {
        bench->ring[bench->tail++ % CAPACITY] = *record;
        result = bench->kind == KIND_EVENTFD || bench->sleeping ? FAULT_PUSHED_WAKE : FAULT_PUSHED;
        bench->sleeping = false;
    }
    pthread_mutex_unlock(&bench->lock);
    return result;
}

static unsigned harvest_locked(Bench *bench, FaultRecord *ret_records, uint64_t most)
{
    unsigned n = 0;

    pthread_mutex_lock(&bench->lock);
    while (n < most && bench->head != bench->tail)
        ret_records[n++] = bench->ring[bench->head++ % CAPACITY];
    if (n == 0)
        bench->sleeping = true;
    pthread_mutex_unlock(&bench->lock);
    return n;
}

/* Up to BATCH records; 0 at the end.  allowed: how many wakes were read and not used up. */
static unsigned harvest(Bench *bench, FaultRecord *ret_records, uint64_t *allowed)
{
    unsigned n;

    for (;;) {
        bool last = atomic_load(&bench->drained);
        if (last)
            *allowed = BATCH;
        if (bench->kind == KIND_QUEUE)
            n = fault_queue_harvest(&bench->queue, ret_records, BATCH);
        else
            n = harvest_locked(bench, ret_records, *allowed < BATCH ? *allowed : BATCH);
        *allowed -= bench->kind == KIND_EVENTFD ? n : 0;
        if (n > 0)
            return n;
        if (last)
            return 0;
        if (bench->kind == KIND_QUEUE && !fault_queue_sleep(&bench->queue))
            continue;
        bench->waits++;
        n = (unsigned)wait_fd(bench->wake_fd);
        if (bench->kind == KIND_QUEUE)
            fault_queue_awake(&bench->queue);
        else if (bench->kind == KIND_EVENTFD)
            *allowed += n;
    }
}

/* --- the threads --------------------------------------------------------------------------- */

/* What is done with a record: all of it is looked at, so that it has to have come over. */
static uint64_t handle(const FaultRecord *record)
{
    return record->address + record->since_ns + record->shard + record->vcpu + record->minor;
}

static void *produce(void *argument)
{
    Bench *bench = argument;
    uint64_t pushed = 0, sum = 0, writes = 0;

    pthread_barrier_wait(&bench->begin);
    while (!atomic_load_explicit(&bench->stop, memory_order_relaxed)) {
        FaultRecord record = {.address = pushed << 12, .since_ns = pushed, .vcpu = 7};
        FaultPush result = bench->kind == KIND_QUEUE ? fault_queue_push(&bench->queue, &record)
                                                     : push_locked(bench, &record);
        if (result == FAULT_QUEUE_FULL) {
            sched_yield();
            continue;
        }
        pushed++;
        sum += handle(&record);
        if (result == FAULT_PUSHED_WAKE) {
            writes++;
            signal_fd(bench->wake_fd);
        }
        if (bench->answered)
            wait_fd(bench->answer_fd);
    }
    atomic_fetch_add(&bench->pushed, pushed);
    atomic_fetch_add(&bench->pushed_sum, sum);
    atomic_fetch_add(&bench->writes, writes);
    return NULL;
}

static void *consume(void *argument)
{
    Bench *bench = argument;
    FaultRecord records[BATCH];
    uint64_t allowed = bench->kind == KIND_LAZY ? BATCH : 0;
    unsigned n;

    pthread_barrier_wait(&bench->begin);
    while ((n = harvest(bench, records, &allowed)) > 0)
        for (unsigned i = 0; i < n; i++) {
            bench->taken++;
            bench->taken_sum += handle(&records[i]);
            if (bench->answered)
                signal_fd(bench->answer_fd);
        }
    return NULL;
}

static void run_threads(Bench *bench, unsigned producers, double seconds)
{
    const struct timespec length = {
        .tv_sec = (time_t)seconds,
        .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9),
    };
    pthread_t threads[PRODUCERS_MAX + 1];

    pthread_barrier_init(&bench->begin, NULL, producers + 2);
    for (unsigned i = 0; i <= producers; i++)
        if (pthread_create(&threads[i], NULL, i == 0 ? consume : produce, bench))
            abort();
    pthread_barrier_wait(&bench->begin);
    nanosleep(&length, NULL);
    atomic_store(&bench->stop, true);
    for (unsigned i = 1; i <= producers; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&bench->drained, true);
    signal_fd(bench->wake_fd);
    pthread_join(threads[0], NULL);
    pthread_barrier_destroy(&bench->begin);
}

static Result measure(Kind kind, unsigned producers, double seconds)
{
    Bench *bench = aligned_alloc(FAULT_QUEUE_LINE, sizeof *bench);
    uint64_t begin;
    Result result;

    if (!bench)
        abort();
    *bench = (Bench){
        .kind = kind,
        .answered = producers == 0,
        .wake_fd = eventfd(0, EFD_CLOEXEC),
        .answer_fd = eventfd(0, EFD_CLOEXEC),
    };
    if (fault_queue_init(&bench->queue, CAPACITY) || bench->wake_fd < 0 || bench->answer_fd < 0)
        abort();
    pthread_mutex_init(&bench->lock, NULL);
    begin = clock_ns();
    run_threads(bench, producers ? producers : 1, seconds);
    result.rate = (double)bench->taken * 1e9 / (double)(clock_ns() - begin);
    result.writes = (double)atomic_load(&bench->writes) / (double)bench->taken;
    result.waits = (double)bench->waits / (double)bench->taken;
    if (bench->taken == 0 || bench->taken != atomic_load(&bench->pushed) ||
        bench->taken_sum != atomic_load(&bench->pushed_sum)) {
        fprintf(stderr, "queue: %lu records pushed, %lu taken, or not the same ones\n",
                (unsigned long)atomic_load(&bench->pushed), (unsigned long)bench->taken);
        exit(1);
    }
    pthread_mutex_destroy(&bench->lock);
    fault_queue_deinit(&bench->queue);
    close(bench->wake_fd);
    close(bench->answer_fd);
    free(bench);
    return result;
}

/* --- figures ------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(const double *values, unsigned n)
{
    double sorted[ROUNDS_MAX];

    memcpy(sorted, values, n * sizeof *values);
    qsort(sorted, n, sizeof *sorted, compare);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

typedef struct Series {
    double rate[ROUNDS_MAX], writes[ROUNDS_MAX], waits[ROUNDS_MAX];
} Series;

static double ratio_to(const Series *series, Kind kind, unsigned rounds)
{
    double ratios[ROUNDS_MAX];

    for (unsigned i = 0; i < rounds; i++)
        ratios[i] = series[KIND_QUEUE].rate[i] / series[kind].rate[i];
    return median(ratios, rounds);
}

static void print_shape(const Series *series, unsigned shape, unsigned rounds)
{
    static const char *const names[] = {"queue", "eventfd", "lazy"};

    printf("%s{\"shape\": \"%s\", \"producers\": %u", shape ? ", " : "",
           shape == SHAPE_SINGLE ? "single" : "flood", shapes[shape] ? shapes[shape] : 1);
    for (Kind kind = 0; kind < KINDS; kind++)
        printf(", \"%s\": {\"hand_overs_s\": %.0f, \"wakes_per_hand_over\": %.6f, "
               "\"waits_per_hand_over\": %.6f}",
               names[kind], median(series[kind].rate, rounds), median(series[kind].writes, rounds),
               median(series[kind].waits, rounds));
    printf(", \"vs_eventfd\": %.3f, \"vs_lazy\": %.3f}", ratio_to(series, KIND_EVENTFD, rounds),
           ratio_to(series, KIND_LAZY, rounds));
}

/* The lowest of the floods: no number of producers is hidden behind another. */
static double worst(Series (*series)[KINDS], Kind kind, unsigned rounds)
{
    double lowest = 0;

    for (unsigned shape = 0; shape < SHAPE_SINGLE; shape++) {
        double ratio = ratio_to(series[shape], kind, rounds);
        if (shape == 0 || ratio < lowest)
            lowest = ratio;
    }
    return lowest;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"rounds", required_argument, NULL, 'r'},
        {"seconds", required_argument, NULL, 's'},
        {NULL, 0, NULL, 0},
    };
    static Series series[SHAPES][KINDS];
    unsigned rounds = 9;
    double seconds = 0.2;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (option == 'r')
            rounds = (unsigned)atoi(optarg);
        else if (option == 's')
            seconds = atof(optarg);
        else
            rounds = 0;
    if (optind != argc || rounds < 1 || rounds > ROUNDS_MAX || seconds <= 0 || seconds > 60) {
        fprintf(stderr, "usage: queue [--rounds 1..%d] [--seconds S]\n", ROUNDS_MAX);
        return 2;
    }
    for (unsigned round = 0; round < rounds; round++)
        for (unsigned shape = 0; shape < SHAPES; shape++)
            for (unsigned i = 0; i < KINDS; i++) {
                Kind kind = (i + round) % KINDS; /* nobody always comes first */
                Result result = measure(kind, shapes[shape], seconds);
                series[shape][kind].rate[round] = result.rate;
                series[shape][kind].writes[round] = result.writes;
                series[shape][kind].waits[round] = result.waits;
            }
    printf("{\"queue_vs_eventfd\": %.3f, \"queue_vs_lazy\": %.3f, \"rounds\": %u, "
           "\"seconds\": %.3f, \"shapes\": [",
           worst(series, KIND_EVENTFD, rounds), worst(series, KIND_LAZY, rounds), rounds, seconds);
    for (unsigned shape = 0; shape < SHAPES; shape++)
        print_shape(series[shape], shape, rounds);
    printf("]}\n");
    return 0;
}
