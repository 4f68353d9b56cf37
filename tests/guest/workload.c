/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/guest/workload.h"

#include "tests/guest/arena.h"
#include "tests/guest/clock.h"
#include "tests/guest/epoch.h"
#include "tests/guest/layout.h"
#include "tests/guest/machine.h"
#include "tests/guest/order.h"
#include "tests/guest/pattern.h"
#include "tests/guest/serial.h"
#include "tests/guest/stall.h"

enum {
    PAGES_PER_MB = 256,
    GENERATIONS_PER_PAGE = 1024,
    REWRITE_EVERY = 8,
    TICK_US = 100000,
    BAD_RECORDS = 20,        /* by each worker */
    FIRST_PASSES = 3,        /* of an epoch: always reported */
    PASS_REPORT_US = 500000, /* later ones not more often than this */
};

typedef struct Range {
    uint64_t start;
    uint64_t count;
} Range;

/* Counters others read; written by the owner alone. */
typedef struct Progress {
    uint64_t pages; /* filled pages verified */
    uint64_t zero_pages;
    uint64_t words; /* of both */
    uint64_t bad;   /* words */
    uint64_t epoch;
    uint64_t passes; /* completed in this epoch */
} Progress;

typedef struct Worker {
    Progress progress;
    unsigned id;
    unsigned bad_records;
    uint64_t passes; /* begun since the start */
    uint64_t report_after;
    Range filled;
    Range zero;
    Stall stall;
} __attribute__((aligned(128))) Worker;

static Args args;
static Range all_filled, all_zero;
static uint32_t *generations; /* by filled page */
static Worker workers[MAX_CPUS];
static unsigned n_filled_workers;

static Deadline tick;
static uint64_t tick_period, tick_number, tick_work;

/* An owner's counters need no locked instruction, only whole loads and stores. */
static void count(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static Range share(Range all, unsigned worker)
{
    uint64_t each = all.count / args.workers;
    bool last = worker + 1 == args.workers;

    return (Range){all.start + worker * each, last ? all.count - worker * each : each};
}

bool workload_init(const Args *given, uint64_t arena_pages)
{
    Record record;

    args = *given;
    all_filled = (Range){0, args.fill_mb * PAGES_PER_MB};
    uint64_t book = (all_filled.count + GENERATIONS_PER_PAGE - 1) / GENERATIONS_PER_PAGE;
    all_zero = (Range){all_filled.count + book, args.zero_mb * PAGES_PER_MB};
    generations = (uint32_t *)arena_page(all_filled.count);
    if (all_zero.start + all_zero.count > arena_pages) {
        record_begin(&record, "FATAL reason=memory");
        record_number(&record, "need_pages", all_zero.start + all_zero.count);
        record_number(&record, "have_pages", arena_pages);
        record_send(&record);
        return false;
    }
    tick_period = clock_ticks(TICK_US);
    return true;
}

/* A worker may stall in here past the next tick, which another then sends: no lock. */
static void send_tick(uint64_t now)
{
    Progress sum = {.passes = UINT64_MAX};
    unsigned epoch = epoch_now();
    Record record;

    for (unsigned i = 0; i < args.workers; i++) {
        const volatile Progress *progress = &workers[i].progress;
        uint64_t passes = progress->epoch == epoch ? progress->passes : 0;

        sum.pages += progress->pages;
        sum.zero_pages += progress->zero_pages;
        sum.words += progress->words;
        sum.bad += progress->bad;
        if (passes < sum.passes)
            sum.passes = passes;
    }
    uint64_t work = sum.pages + sum.zero_pages;
    uint64_t last_work = __atomic_exchange_n(&tick_work, work, __ATOMIC_RELAXED);
    record_begin(&record, "TICK");
    record_number(&record, "n", __atomic_fetch_add(&tick_number, 1, __ATOMIC_RELAXED));
    record_number(&record, "t_us", clock_us(now));
    record_number(&record, "epoch", epoch);
    record_number(&record, "pages", sum.pages);
    record_number(&record, "zero_pages", sum.zero_pages);
    record_number(&record, "words", sum.words);
    record_number(&record, "bad", sum.bad);
    record_number(&record, "passes", sum.passes);
    record_number(&record, "work", work > last_work ? work - last_work : 0);
    record_send(&record);
}

static void report_bad(Worker *worker, uint64_t page, unsigned word, uint64_t want)
{
    Record record;

    if (worker->bad_records == BAD_RECORDS)
        return;
    worker->bad_records++;
    record_begin(&record, "BAD");
    record_number(&record, "worker", worker->id);
    record_number(&record, "page", page);
    record_number(&record, "word", word);
    record_hex(&record, "got", arena_page(page)[word]);
    record_hex(&record, "want", want);
    record_number(&record, "gen", page < all_filled.count ? generations[page] : 0);
    record_send(&record);
}

/* Every word is looked at; telling which are wrong can take its time. */
static void verify_filled(Worker *worker, uint64_t page)
{
    const volatile uint64_t *words = arena_page(page);
    uint32_t generation = generations[page];
    uint64_t key = pattern_key(args.seed, page, generation);
    uint64_t head = pattern_head(page, generation);
    uint64_t difference = words[0] ^ head;

    for (unsigned i = 1; i < PAGE_WORDS; i++)
        difference |= words[i] ^ pattern_word(key, i);
    count(&worker->progress.words, PAGE_WORDS);
    for (unsigned i = 0; difference && i < PAGE_WORDS; i++) {
        uint64_t want = i ? pattern_word(key, i) : head;

        if (words[i] == want)
            continue;
        count(&worker->progress.bad, 1);
        report_bad(worker, page, i, want);
    }
}

static void verify_zero(Worker *worker, uint64_t page)
{
    const volatile uint64_t *words = arena_page(page);

    for (unsigned i = 0; i < PAGE_WORDS; i++) {
        if (!words[i])
            continue;
        count(&worker->progress.bad, 1);
        report_bad(worker, page, i, 0);
    }
    count(&worker->progress.words, PAGE_WORDS);
    count(&worker->progress.zero_pages, 1);
}

/* The page's first touch and nothing else is timed. */
static void visit(Worker *worker, uint64_t page, bool rewrite)
{
    uint64_t before = rdtsc();
    (void)*(volatile uint64_t *)arena_page(page);
    uint64_t after = rdtsc();

    stall_add(&worker->stall, clock_ns(after - before));
    verify_filled(worker, page);
    count(&worker->progress.pages, 1);
    if (rewrite)
        pattern_fill(arena_page(page), args.seed, page, ++generations[page]);
    /* A tick at once shows how much was done until the switchover. */
    if (epoch_poll(after, after - before))
        deadline_expire(&tick);
    if (deadline_take(&tick, after, tick_period))
        send_tick(after);
}

/* Zero pages are spread over the pass, that work per time stays even. */
static uint64_t visit_zero(Worker *worker, uint64_t done, uint64_t visited)
{
    uint64_t due = worker->zero.count * visited / worker->filled.count;

    if (worker->progress.epoch < args.zero_epoch)
        return done;
    for (; done < due; done++)
        verify_zero(worker, worker->zero.start + done);
    return done;
}

/* False if a new epoch cut it short. */
static bool pass(Worker *worker, unsigned epoch)
{
    uint64_t key = pattern_mix(args.seed + worker->id * UINT64_C(1000003) + worker->passes++);
    Order order = order_begin(worker->filled.count, key, args.linear);
    uint64_t index, visited = 0, zero_done = 0;

    while (order_next(&order, &index)) {
        bool rewrite = args.write && (visited + worker->passes) % REWRITE_EVERY == 0;

        visit(worker, worker->filled.start + index, rewrite);
        zero_done = visit_zero(worker, zero_done, ++visited);
        if (epoch_now() != epoch)
            return false;
    }
    return true;
}

static void report_pass(Worker *worker, unsigned epoch, uint64_t n)
{
    uint64_t now = rdtsc();
    Record record;

    if (n >= FIRST_PASSES && now < worker->report_after)
        return;
    worker->report_after = now + clock_ticks(PASS_REPORT_US);
    stall_report(&worker->stall, worker->id, epoch, n, n == 0);
    record_begin(&record, "PASS");
    record_number(&record, "worker", worker->id);
    record_number(&record, "epoch", epoch);
    record_number(&record, "n", n);
    record_number(&record, "pages", worker->progress.pages);
    record_number(&record, "words", worker->progress.words);
    record_number(&record, "bad", worker->progress.bad);
    record_send(&record);
}

static void run_epoch(Worker *worker, unsigned epoch)
{
    __atomic_store_n(&worker->progress.passes, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&worker->progress.epoch, epoch, __ATOMIC_RELAXED);
    for (uint64_t n = 0;; n++) {
        stall_reset(&worker->stall);
        if (!pass(worker, epoch))
            return;
        report_pass(worker, epoch, n);
        count(&worker->progress.passes, 1);
    }
}

static void fill(Worker *worker)
{
    for (uint64_t i = 0; i < worker->filled.count; i++) {
        uint64_t page = worker->filled.start + i;

        generations[page] = 0;
        pattern_fill(arena_page(page), args.seed, page, 0);
    }
}

static void wait_all_filled(void)
{
    Record record;

    if (__atomic_add_fetch(&n_filled_workers, 1, __ATOMIC_ACQ_REL) == args.workers) {
        record_begin(&record, "READY");
        record_number(&record, "workers", args.workers);
        record_number(&record, "pages", all_filled.count);
        record_number(&record, "zero_pages", all_zero.count);
        record_number(&record, "t_us", clock_us(rdtsc()));
        record_send(&record);
    }
    while (__atomic_load_n(&n_filled_workers, __ATOMIC_ACQUIRE) < args.workers)
        pause();
}

_Noreturn void workload_run(unsigned id)
{
    Worker *worker = &workers[id];

    worker->id = id;
    worker->filled = share(all_filled, id);
    worker->zero = share(all_zero, id);
    fill(worker);
    wait_all_filled();
    for (;;)
        run_epoch(worker, epoch_now());
}
