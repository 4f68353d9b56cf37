/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The least that serves a guest by RDMA: a process that reads a fault, READs its page to where it belongs,
 * looking until that is done, and places it (CONTINUE).  One fault at a time, of one guest that is known
 * beforehand, whose pages all exist, from a peer that never fails.
 *
 *   bare_rdma NEAR-ADDRESS FAR-ADDRESS GUEST_CPU HANDLER_CPU PAGES WARM_UP      (a CPU of -1: any)
 *
 * WARM_UP pages more are touched before, which do not count.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "tests/bench/bench_common.h"
#include "tests/bench/rdma_ends.h"
#include "tests/bench/touch.h"

static _Noreturn void serve(const BenchMemory *memory, char **argv, int ready)
{
    RdmaEnds ends;
    uint64_t offset;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    rdma_ends_init(&ends, argv[1], argv[2], memory->alias, memory->length);
    bench_pin(bench_cpu(argv[4]));
    if (write(ready, "", 1) != 1)
        bench_die("a pipe");
    for (;;)
        if (bench_memory_fault(memory, &offset)) {
            rdma_ends_read(&ends, offset);
            bench_memory_continue(memory, offset, BENCH_PAGE, true);
        }
}

static const void *page_of(const void *owner, uint64_t number)
{
    const BenchMemory *memory = owner;

    return memory->guest + number * BENCH_PAGE;
}

int main(int argc, char **argv)
{
    BenchMemory memory;
    TouchResult result;
    char text[1024];
    int ready[2];

    if (argc != 7)
        bench_die("usage: bare_rdma NEAR-ADDRESS FAR-ADDRESS GUEST_CPU HANDLER_CPU PAGES WARM_UP");
    uint64_t n_pages = bench_number(argv[5], 1 << 24), warm_up = bench_number(argv[6], 1 << 24);
    bench_memory_init(&memory, BENCH_CONTINUE, (n_pages + warm_up) * BENCH_PAGE);
    bench_memory_register(&memory, true);
    if (pipe(ready))
        bench_die("pipe");
    pid_t child = fork();
    if (child < 0)
        bench_die("fork");
    if (child == 0)
        serve(&memory, argv, ready[1]);
    close(ready[1]);
    if (read(ready[0], text, 1) != 1)
        bench_die("the handler did not start");
    TouchPlan plan = {
        .page = page_of,
        .owner = &memory,
        .n_pages = n_pages + warm_up,
        .n = warm_up,
        .random = true,
        .n_threads = 1,
        .cpu = bench_cpu(argv[3]),
    };
    touch_run(&plan, &result);
    plan.first = warm_up;
    plan.n = n_pages;
    touch_run(&plan, &result);
    touch_format(&result, text, sizeof text);
    puts(text);
    return 0;
}
