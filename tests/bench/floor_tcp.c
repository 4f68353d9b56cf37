/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The floor of fetching one page: a small request and 4 KiB back, over loopback TCP between two
 * processes that block.
 *
 *   floor_tcp CLIENT_CPU SERVER_CPU ROUNDS      (a CPU of -1: any)
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/bench_common.h"

enum { REQUEST = 56, WARM_UP = 200 };

static _Noreturn void serve(int listener, int cpu, uint64_t rounds)
{
    static uint8_t request[REQUEST], page[BENCH_PAGE];
    int connection;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    bench_pin(cpu);
    connection = bench_accept(listener);
    for (uint64_t i = 0; i < rounds; i++) {
        bench_receive(connection, request, sizeof request);
        bench_send(connection, page, sizeof page);
    }
    _exit(0);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void ask(int connection, uint64_t rounds, uint64_t *ret_ns)
{
    static uint8_t request[REQUEST], page[BENCH_PAGE];

    for (uint64_t i = 0; i < rounds; i++) {
        uint64_t before = bench_now_ns();
        bench_send(connection, request, sizeof request);
        bench_receive(connection, page, sizeof page);
        ret_ns[i] = bench_now_ns() - before;
    }
}

int main(int argc, char **argv)
{
    uint16_t port;

    if (argc != 4)
        bench_die("usage: floor_tcp CLIENT_CPU SERVER_CPU ROUNDS");
    uint64_t rounds = bench_number(argv[3], 1 << 24) + WARM_UP;
    uint64_t *took_ns = calloc(rounds, sizeof *took_ns);
    int listener = bench_listen(&port);
    pid_t server = fork();
    if (server < 0 || !took_ns)
        bench_die("fork");
    if (server == 0)
        serve(listener, bench_cpu(argv[2]), rounds);
    bench_pin(bench_cpu(argv[1]));
    ask(bench_connect(port), rounds, took_ns);
    waitpid(server, NULL, 0);
    qsort(took_ns + WARM_UP, rounds - WARM_UP, sizeof *took_ns, compare);
    printf("{\"p50_us\": %.2f, \"p99_us\": %.2f}\n",
           (double)took_ns[WARM_UP + (rounds - WARM_UP) / 2] / 1e3,
           (double)took_ns[WARM_UP + (rounds - WARM_UP) * 99 / 100] / 1e3);
    free(took_ns);
    return 0;
}
