/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The floor of a fault without a network: a thread touches a page, another reads the fault, places a
 * page it has at hand, and the first goes on.  With "process" the other is one of another process, as a
 * daemon's is.
 *
 *   floor_uffd anonymous|memfd|continue GUEST_CPU HANDLER_CPU PAGES [process]      (a CPU of -1: any)
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
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

static void start(Handler *handler, bool process)
{
    pthread_t thread;

    if (!process) {
        if (pthread_create(&thread, NULL, serve, handler))
            bench_die("thread");
        return;
    }
    pid_t child = fork();
    if (child < 0)
        bench_die("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(handler);
    }
}

static const void *page_of(const void *owner, uint64_t number)
{
    const Handler *handler = owner;

    return handler->memory.guest + number * BENCH_PAGE;
}

int main(int argc, char **argv)
{
    static Handler handler;
    TouchResult result;
    char text[1024];

    bool process = argc == 6 && strcmp(argv[5], "process") == 0;
    if (argc != 5 && !process)
        bench_die(
            "usage: floor_uffd anonymous|memfd|continue GUEST_CPU HANDLER_CPU PAGES [process]");
    uint64_t n_pages = bench_number(argv[4], 1 << 24);
    bench_memory_init(&handler.memory, bench_kind(argv[1]), n_pages * BENCH_PAGE);
    bench_memory_register(&handler.memory, true);
    handler.cpu = bench_cpu(argv[3]);
    memset(handler.page, 7, sizeof handler.page);
    start(&handler, process);
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
