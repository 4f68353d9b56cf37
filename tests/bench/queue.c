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
 * work: 1, 2 and 4 producers; each record costs its producer and the consumer WORK_NS of computing, as
 * reading and resolving a fault costs them, less than either does in a resolver.  The ratios that count
 * are of these.  bare: the same without, the queues alone; where the scheduler lets the consumer in after
 * every few records they differ little, where it does not they differ most.  single: one producer waits
 * for the answer to each record: what is left is the wake itself.
 *
 * A producer that finds the ring full sleeps for a moment and leaves its core to the consumer.  Designs
 * take turns within a round; each figure is the median over the rounds, each ratio the median of the
 * rounds' own ratios.  queue_vs_eventfd is the median over all rounds of all numbers of producers, lowest
 * that of the number of producers that does worst.
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "daemon/core/clock.h"
#include "daemon/core/fault_queue.h"

enum {
    CAPACITY = 1024,
    BATCH = 32,
    PRODUCERS_MAX = 4,
    ROUNDS_MAX = 101,
    WORK_NS = 500,
    FULL_NS = 50000
};

typedef enum Kind { KIND_QUEUE, KIND_EVENTFD, KIND_LAZY, KINDS } Kind;

typedef struct Shape {
    const char *name;
    unsigned producers;
    bool counts;   /* for the ratio */
    bool works;    /* a record costs something */
    bool answered; /* each of them, before the next */
} Shape;

static const Shape shapes[] = {
    {.name = "work", .producers = 1, .counts = true, .works = true},
    {.name = "work", .producers = 2, .counts = true, .works = true},
    {.name = "work", .producers = 4, .counts = true, .works = true},
    {.name = "bare", .producers = 1},
    {.name = "bare", .producers = 2},
    {.name = "bare", .producers = 4},
    {.name = "single", .producers = 1, .answered = true},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

typedef struct Bench {
    Kind kind;
    bool answered;
    unsigned work; /* steps */
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
    double cpu_ns; /* of all threads, a hand-over; its work included */
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

static double cpu_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
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
static uint64_t handle(const FaultRecord *record, unsigned work)
{
    uint64_t x =
        record->address + record->since_ns + record->shard + record->vcpu + record->minor + 1;

    for (unsigned i = 0; i < work; i++)
        x = (x ^ x >> 29) * UINT64_C(0x9e3779b97f4a7c15);
    return x;
}

/* How many steps make WORK_NS: the best of many tries, for others may be running. */
static unsigned steps_of_work(void)
{
    enum { STEPS = 10000, TRIES = 200 };
    FaultRecord record = {.address = clock_ns()};
    uint64_t best = UINT64_MAX;

    for (unsigned i = 0; i < TRIES; i++) {
        uint64_t begin = clock_ns();
        record.address += handle(&record, STEPS);
        uint64_t length = clock_ns() - begin;
        if (length < best)
            best = length;
    }
    return (unsigned)((uint64_t)WORK_NS * STEPS / (best ? best : 1)) + (record.address == 1);
}

static void *produce(void *argument)
{
    Bench *bench = argument;
    uint64_t pushed = 0, sum = 0, writes = 0, handled = 0;
    const struct timespec pause = {.tv_nsec = FULL_NS};
    bool full = false;

    pthread_barrier_wait(&bench->begin);
    while (!atomic_load_explicit(&bench->stop, memory_order_relaxed)) {
        FaultRecord record = {.address = pushed << 12, .since_ns = pushed, .vcpu = 7};
        FaultPush result;

        if (!full) /* else the work on this record is done */
            handled = handle(&record, bench->work);
        result = bench->kind == KIND_QUEUE ? fault_queue_push(&bench->queue, &record)
                                           : push_locked(bench, &record);
        full = result == FAULT_QUEUE_FULL;
        if (full) {
            nanosleep(&pause, NULL);
            continue;
        }
        pushed++;
        sum += handled;
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
            bench->taken_sum += handle(&records[i], bench->work);
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

static Result measure(Kind kind, const Shape *shape, unsigned work, double seconds)
{
    Bench *bench = aligned_alloc(FAULT_QUEUE_LINE, sizeof *bench);
    uint64_t begin;
    double cpu_begin;
    Result result;

    if (!bench)
        abort();
    *bench = (Bench){
        .kind = kind,
        .answered = shape->answered,
        .work = shape->works ? work : 0,
        .wake_fd = eventfd(0, EFD_CLOEXEC),
        .answer_fd = eventfd(0, EFD_CLOEXEC),
    };
    if (fault_queue_init(&bench->queue, CAPACITY) || bench->wake_fd < 0 || bench->answer_fd < 0)
        abort();
    pthread_mutex_init(&bench->lock, NULL);
    cpu_begin = cpu_now_ns();
    begin = clock_ns();
    run_threads(bench, shape->producers, seconds);
    result.rate = (double)bench->taken * 1e9 / (double)(clock_ns() - begin);
    result.cpu_ns = (cpu_now_ns() - cpu_begin) / (double)bench->taken;
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
    double sorted[SHAPES * ROUNDS_MAX];

    memcpy(sorted, values, n * sizeof *values);
    qsort(sorted, n, sizeof *sorted, compare);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

typedef struct Series {
    double rate[ROUNDS_MAX], writes[ROUNDS_MAX], waits[ROUNDS_MAX], cpu_ns[ROUNDS_MAX];
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

    printf("%s{\"shape\": \"%s\", \"producers\": %u", shape ? ", " : "", shapes[shape].name,
           shapes[shape].producers);
    for (Kind kind = 0; kind < KINDS; kind++)
        printf(", \"%s\": {\"hand_overs_s\": %.0f, \"wakes_per_hand_over\": %.6f, "
               "\"waits_per_hand_over\": %.6f, \"cpu_ns_per_hand_over\": %.0f}",
               names[kind], median(series[kind].rate, rounds), median(series[kind].writes, rounds),
               median(series[kind].waits, rounds), median(series[kind].cpu_ns, rounds));
    printf(", \"vs_eventfd\": %.3f, \"vs_lazy\": %.3f}", ratio_to(series, KIND_EVENTFD, rounds),
           ratio_to(series, KIND_LAZY, rounds));
}

/* The lowest of those that count: no number of producers is hidden behind another. */
static double worst(Series (*series)[KINDS], Kind kind, unsigned rounds)
{
    double lowest = 0;

    for (unsigned shape = 0; shape < SHAPES; shape++) {
        double ratio = ratio_to(series[shape], kind, rounds);
        if (shapes[shape].counts && (lowest == 0 || ratio < lowest))
            lowest = ratio;
    }
    return lowest;
}

/* Of all rounds of those that count. */
static double overall(Series (*series)[KINDS], Kind kind, unsigned rounds)
{
    double ratios[SHAPES * ROUNDS_MAX];
    unsigned n = 0;

    for (unsigned shape = 0; shape < SHAPES; shape++)
        for (unsigned i = 0; shapes[shape].counts && i < rounds; i++)
            ratios[n++] = series[shape][KIND_QUEUE].rate[i] / series[shape][kind].rate[i];
    return median(ratios, n);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"rounds", required_argument, NULL, 'r'},
        {"seconds", required_argument, NULL, 's'},
        {NULL, 0, NULL, 0},
    };
    static Series series[SHAPES][KINDS];
    unsigned rounds = 9, work = steps_of_work();
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
                Result result = measure(kind, &shapes[shape], work, seconds);
                series[shape][kind].rate[round] = result.rate;
                series[shape][kind].writes[round] = result.writes;
                series[shape][kind].waits[round] = result.waits;
                series[shape][kind].cpu_ns[round] = result.cpu_ns;
            }
    printf(
        "{\"queue_vs_eventfd\": %.3f, \"lowest\": %.3f, \"queue_vs_lazy\": %.3f, \"rounds\": %u, "
        "\"seconds\": %.3f, \"work_steps\": %u, \"shapes\": [",
        overall(series, KIND_EVENTFD, rounds), worst(series, KIND_EVENTFD, rounds),
        overall(series, KIND_LAZY, rounds), rounds, seconds, work);
    for (unsigned shape = 0; shape < SHAPES; shape++)
        print_shape(series[shape], shape, rounds);
    printf("]}\n");
    return 0;
}
