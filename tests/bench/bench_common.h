/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the small programs of the fault benchmark share: clocks, what a thread has cost so far, pinning,
 * and guest memory behind a userfaultfd.  Whatever fails ends the program with one line.
 */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { BENCH_PAGE = 4096 };

/* Says what failed, and why if errno tells; exits with 2. */
_Noreturn void __attribute__((format(printf, 1, 2))) bench_die(const char *format, ...);

/* A number from the command line, at most max. */
uint64_t bench_number(const char *text, uint64_t max);

/* A CPU from the command line; -1: any. */
int bench_cpu(const char *text);

uint64_t bench_now_ns(void);

/* What a thread of this process has cost so far. */
typedef struct BenchCost {
    uint64_t cpu_ns;
    uint64_t sleeps; /* voluntary context switches: how often it waited and was woken */
} BenchCost;

BenchCost bench_cost(pid_t tid);

/* The calling thread on one CPU; -1: anywhere. */
void bench_pin(int cpu);

/* What backs guest memory, and how pages come into it. */
typedef enum BenchKind {
    BENCH_ANONYMOUS, /* COPY */
    BENCH_MEMFD,     /* COPY into a memory file that has no pages yet */
    BENCH_CONTINUE, /* a memory file that has all its pages: written by a second mapping, CONTINUE */
} BenchKind;

BenchKind bench_kind(const char *name);
const char *bench_kind_name(BenchKind kind);

typedef struct BenchMemory {
    BenchKind kind;
    uint64_t length;
    int fd; /* -1: anonymous */
    uint8_t *guest;
    uint8_t *alias; /* CONTINUE: the second mapping, populated */
    int uffd;       /* -1 before bench_memory_register() */
} BenchMemory;

void bench_memory_init(BenchMemory *memory, BenchKind kind, uint64_t length);

/* Faults on it are told by its uffd from now on; blocking decides how that is read. */
void bench_memory_register(BenchMemory *memory, bool blocking);

/* Places pages that came from elsewhere: length bytes at offset. */
void bench_memory_place(const BenchMemory *memory, uint64_t offset, const void *data,
                        uint64_t length, bool wake);

/* The same once the data was received at alias + offset (CONTINUE only). */
void bench_memory_continue(const BenchMemory *memory, uint64_t offset, uint64_t length, bool wake);

/* One fault message; the offset of its page. False if there was none (a uffd that does not block). */
bool bench_memory_fault(const BenchMemory *memory, uint64_t *ret_offset);

/* A listening TCP socket on the loopback address, and a connection to it. */
int bench_listen(uint16_t *ret_port);
int bench_accept(int listener);
int bench_connect(uint16_t port);

/* All of it or the program ends. */
void bench_send(int socket, const void *data, uint64_t length);
void bench_receive(int socket, void *data, uint64_t length);

#endif
