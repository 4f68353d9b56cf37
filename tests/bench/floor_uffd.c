/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The floor of a fault without a network: a thread touches a page, another reads the fault, places a
 * page it has at hand, and the first goes on.
 *
 *   floor_uffd anonymous|memfd|continue GUEST_CPU HANDLER_CPU PAGES      (a CPU of -1: any)
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/bench_common.h"
#include "tests/bench/touch.h"

typedef struct Handler {
    BenchMemory memory;
    int cpu;
    uint8_t page[BENCH_PAGE];
} Handler;

static void *serve(void *argument)
{
    Handler *self = argument;
    uint64_t offset;

    bench_pin(self->cpu);
    for (;;)
        if (bench_memory_fault(&self->memory, &offset))
            bench_memory_place(&self->memory, offset, self->page, BENCH_PAGE, true);
    return NULL;
}

static const void *page_of(const void *owner, uint64_t number)
{
    const Handler *handler = owner;

    return handler->memory.guest + number * BENCH_PAGE;
}

int main(int argc, char **argv)
{
    static Handler handler;
    pthread_t thread;
    TouchResult result;
    char text[1024];

    if (argc != 5)
        bench_die("usage: floor_uffd anonymous|memfd|continue GUEST_CPU HANDLER_CPU PAGES");
    uint64_t n_pages = bench_number(argv[4], 1 << 24);
    bench_memory_init(&handler.memory, bench_kind(argv[1]), n_pages * BENCH_PAGE);
    bench_memory_register(&handler.memory, true);
    handler.cpu = bench_cpu(argv[3]);
    memset(handler.page, 7, sizeof handler.page);
    if (pthread_create(&thread, NULL, serve, &handler))
        bench_die("thread");
    const TouchPlan plan = {
        .page = page_of,
        .owner = &handler,
        .n_pages = n_pages,
        .n = n_pages,
        .random = true,
        .n_threads = 1,
        .cpu = bench_cpu(argv[2]),
    };
    touch_run(&plan, &result);
    touch_format(&result, text, sizeof text);
    puts(text);
    fflush(stdout);
    _exit(0); /* the handler waits for more */
}
