/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The floor of fetching one page by RDMA: READs of 4 KiB, one after another, each looked for until it is
 * complete, between two addresses of this host that a device has.
 *
 *   floor_rdma NEAR-ADDRESS FAR-ADDRESS CPU ROUNDS      (a CPU of -1: any)
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/bench/bench_common.h"
#include "tests/bench/rdma_ends.h"

enum { WARM_UP = 200, PAGES = 1024 };

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    RdmaEnds ends;

    if (argc != 5)
        bench_die("usage: floor_rdma NEAR-ADDRESS FAR-ADDRESS CPU ROUNDS");
    uint64_t rounds = bench_number(argv[4], 1 << 24) + WARM_UP;
    uint64_t *took_ns = calloc(rounds, sizeof *took_ns);
    void *pages = mmap(NULL, PAGES * BENCH_PAGE, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (!took_ns || pages == MAP_FAILED)
        bench_die("memory");
    rdma_ends_init(&ends, argv[1], argv[2], pages, PAGES * BENCH_PAGE);
    bench_pin(bench_cpu(argv[3]));
    for (uint64_t i = 0; i < rounds; i++) {
        uint64_t before = bench_now_ns();
        rdma_ends_read(&ends, i * 7 % PAGES * BENCH_PAGE);
        took_ns[i] = bench_now_ns() - before;
    }
    qsort(took_ns + WARM_UP, rounds - WARM_UP, sizeof *took_ns, compare);
    printf("{\"p50_us\": %.2f, \"p99_us\": %.2f}\n",
           (double)took_ns[WARM_UP + (rounds - WARM_UP) / 2] / 1e3,
           (double)took_ns[WARM_UP + (rounds - WARM_UP) * 99 / 100] / 1e3);
    return 0;
}
