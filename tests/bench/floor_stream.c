/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The floor of the stream: a process sends memory over loopback TCP in large writes, another receives
 * and places it, and nothing else.
 *
 *   floor_stream anonymous|memfd|continue SENDER_CPU RECEIVER_CPU MIB CHUNK_KIB    (a CPU of -1: any)
 *
 * continue receives straight into the second mapping; the others into a buffer, and COPY.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/bench_common.h"

static _Noreturn void serve(int listener, int cpu, uint64_t length, uint64_t chunk)
{
    BenchMemory memory;
    int connection;
    uint8_t byte = 0;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    bench_pin(cpu);
    bench_memory_init(&memory, BENCH_MEMFD, length);
    for (uint64_t i = 0; i < length; i += 8)
        *(uint64_t *)(memory.guest + i) = i | 1;
    connection = bench_accept(listener);
    /* Ready: what it took to fill the memory is not part of the stream. */
    bench_send(connection, &byte, sizeof byte);
    bench_receive(connection, &byte, sizeof byte);
    for (uint64_t at = 0; at < length; at += chunk)
        bench_send(connection, memory.guest + at, chunk);
    _exit(0);
}

static void fill(const BenchMemory *memory, int connection, uint64_t chunk)
{
    uint8_t *buffer = mmap(NULL, chunk, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (buffer == MAP_FAILED)
        bench_die("memory");
    bench_send(connection, "g", 1);
    for (uint64_t at = 0; at < memory->length; at += chunk) {
        if (memory->kind == BENCH_CONTINUE) {
            bench_receive(connection, memory->alias + at, chunk);
            bench_memory_continue(memory, at, chunk, false);
        } else {
            bench_receive(connection, buffer, chunk);
            bench_memory_place(memory, at, buffer, chunk, false);
        }
    }
}

int main(int argc, char **argv)
{
    BenchMemory memory;
    uint16_t port;

    if (argc != 6)
        bench_die(
            "usage: floor_stream anonymous|memfd|continue SENDER_CPU RECEIVER_CPU MIB CHUNK_KIB");
    uint64_t length = bench_number(argv[4], 1 << 20) << 20;
    uint64_t chunk = bench_number(argv[5], 1 << 20) << 10;
    int listener = bench_listen(&port);
    pid_t sender = fork();
    if (sender < 0)
        bench_die("fork");
    if (sender == 0)
        serve(listener, bench_cpu(argv[2]), length, chunk);
    bench_pin(bench_cpu(argv[3]));
    bench_memory_init(&memory, bench_kind(argv[1]), length);
    bench_memory_register(&memory, false);
    int connection = bench_connect(port);
    uint8_t ready;
    bench_receive(connection, &ready, sizeof ready);
    BenchCost before = bench_cost(gettid());
    uint64_t begin = bench_now_ns();
    fill(&memory, connection, chunk);
    double ms = (double)(bench_now_ns() - begin) / 1e6;
    BenchCost after = bench_cost(gettid());
    waitpid(sender, NULL, 0);
    printf("{\"ms\": %.2f, \"mib_s\": %.1f, \"cpu_us_per_page\": %.3f}\n", ms,
           (double)(length >> 20) / ms * 1e3,
           (double)(after.cpu_ns - before.cpu_ns) / 1e3 / (double)(length / BENCH_PAGE));
    return 0;
}
