/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The classic post-copy handler, to measure the daemon against: one thread polls the userfaultfd, reads
 * one message, fetches that page over TCP and waits for it, and places it.  The source is the
 * daemon's own server, in a process of its own.
 *
 *   classic anonymous|memfd|continue THREADS PAGES random|ordered [GUEST_CPU HANDLER_CPU SOURCE_CPU]
 *
 * Prints "READY handler-tid source-pid", waits for a line, lets THREADS threads touch the pages once,
 * prints one line of JSON, and waits for another line.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/source/server.h"
#include "tests/bench/bench_common.h"
#include "tests/bench/touch.h"

enum { SESSION = 4, GENERATION = 2 };

typedef struct Handler {
    BenchMemory memory;
    int connection;
    int cpu;   /* -1: any */
    pid_t tid; /* atomic; 0 until it runs */
    uint64_t faults;
} Handler;

/* --- the source ---------------------------------------------------------------------------- */

static void ignore(void *owner, Export *export, ExportEvent event)
{
    (void)owner;
    (void)export;
    (void)event;
}

static Export *make_export(uint64_t length)
{
    uint8_t uuid[LIMIT_UUID] = {1};
    RegionSet *regions = calloc(1, sizeof *regions);
    BenchMemory memory;
    Export *export;
    int error;

    bench_memory_init(&memory, BENCH_MEMFD, length);
    for (uint64_t i = 0; i < length; i += 8)
        *(uint64_t *)(memory.guest + i) = i | 1;
    if (!regions)
        bench_die("memory");
    regions->n = 1;
    regions->regions[0] = (Region){
        .id = "ram",
        .address = (uintptr_t)memory.guest,
        .length = length,
        .page_size = BENCH_PAGE,
        .page_shift = (unsigned)__builtin_ctz(BENCH_PAGE),
        .kind = CLIENT_REGION_SHARED,
        .fd = memory.fd,
    };
    export = export_new(uuid, "bench", getpid(), regions, ignore, NULL, &error);
    free(regions);
    if (!export)
        bench_die("export: %s", strerrordesc_np(-error));
    export_seal(export);
    return export;
}

static _Noreturn void serve(int listener, int ready, uint64_t length, int cpu)
{
    ExportChannel channel = {.kind = PEER_CHANNEL_URGENT};
    Export *export;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    bench_pin(cpu);
    export = make_export(length);
    if (write(ready, "", 1) != 1)
        _exit(2);
    server_run(export, &channel,
               &(ServerLink){
                   .fd = bench_accept(listener),
                   .session = SESSION,
                   .generation = GENERATION,
               });
    _exit(0);
}

/* Its process, once the memory is filled. */
static pid_t start_source(uint64_t length, int cpu, uint16_t *ret_port)
{
    int ready[2];
    int listener = bench_listen(ret_port);
    pid_t source;
    char byte;

    if (pipe(ready) || (source = fork()) < 0)
        bench_die("fork");
    if (source == 0)
        serve(listener, ready[1], length, cpu);
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1)
        bench_die("the source does not start");
    return source;
}

/* --- the handler --------------------------------------------------------------------------- */

static void fetch(const Handler *self, uint64_t page, uint8_t *ret_data)
{
    const PeerReadItem item = {.cookie = page, .page = page, .count = 1};
    uint8_t request[256];
    uint8_t answer[PEER_HEADER_SIZE + PEER_PLACEMENT_SIZE + BENCH_PAGE];
    ssize_t length = peer_read_encode(SESSION, GENERATION, &item, 1, request, sizeof request);
    PeerHeader header;

    if (length < 0)
        bench_die("request");
    bench_send(self->connection, request, (uint64_t)length);
    bench_receive(self->connection, answer, sizeof answer);
    if (peer_header_decode(answer, &header) || header.type != PEER_DATA || header.cookie != page)
        bench_die("the source's answer is not the page");
    memcpy(ret_data, answer + PEER_HEADER_SIZE + PEER_PLACEMENT_SIZE, BENCH_PAGE);
}

static void *handle(void *argument)
{
    Handler *self = argument;
    struct pollfd poller = {.fd = self->memory.uffd, .events = POLLIN};
    uint8_t data[BENCH_PAGE];
    uint64_t offset;

    bench_pin(self->cpu);
    __atomic_store_n(&self->tid, gettid(), __ATOMIC_RELEASE);
    for (;;) {
        poll(&poller, 1, -1);
        if (!bench_memory_fault(&self->memory, &offset))
            continue;
        fetch(self, offset / BENCH_PAGE, data);
        __atomic_store_n(&self->faults, self->faults + 1, __ATOMIC_RELAXED);
        bench_memory_place(&self->memory, offset, data, BENCH_PAGE, true);
    }
    return NULL;
}

static const void *page_of(const void *owner, uint64_t number)
{
    const Handler *handler = owner;

    return handler->memory.guest + number * BENCH_PAGE;
}

static void wait_line(void)
{
    char line[64];

    if (!fgets(line, sizeof line, stdin))
        exit(0);
}

static void measure(Handler *handler, const TouchPlan *plan)
{
    TouchResult result;
    char text[1024];
    BenchCost before = bench_cost(handler->tid);

    touch_run(plan, &result);
    BenchCost after = bench_cost(handler->tid);
    double faults = (double)__atomic_load_n(&handler->faults, __ATOMIC_RELAXED);
    touch_format(&result, text, sizeof text);
    printf("{\"faults\": %.0f, \"cpu_us_per_fault\": %.3f, \"sleeps_per_fault\": %.3f, "
           "\"touch\": %s}\n",
           faults, (double)(after.cpu_ns - before.cpu_ns) / 1e3 / faults,
           (double)(after.sleeps - before.sleeps) / faults, text);
    fflush(stdout);
}

static const char usage[] = "usage: classic anonymous|memfd|continue THREADS PAGES random|ordered "
                            "[GUEST_CPU HANDLER_CPU SOURCE_CPU]";

int main(int argc, char **argv)
{
    static Handler handler;
    int cpus[3] = {-1, -1, -1};
    pthread_t thread;
    uint16_t port;

    if ((argc != 5 && argc != 8) ||
        (strcmp(argv[4], "random") != 0 && strcmp(argv[4], "ordered") != 0))
        bench_die("%s", usage);
    for (int i = 5; i < argc; i++)
        cpus[i - 5] = bench_cpu(argv[i]);
    uint64_t n_pages = bench_number(argv[3], 1 << 24);
    pid_t source = start_source(n_pages * BENCH_PAGE, cpus[2], &port);
    bench_memory_init(&handler.memory, bench_kind(argv[1]), n_pages * BENCH_PAGE);
    bench_memory_register(&handler.memory, false);
    handler.connection = bench_connect(port);
    handler.cpu = cpus[1];
    if (pthread_create(&thread, NULL, handle, &handler))
        bench_die("thread");
    while (!__atomic_load_n(&handler.tid, __ATOMIC_ACQUIRE))
        usleep(100);
    const TouchPlan plan = {
        .page = page_of,
        .owner = &handler,
        .n_pages = n_pages,
        .n = n_pages,
        .random = strcmp(argv[4], "random") == 0,
        .n_threads = (unsigned)bench_number(argv[2], TOUCH_THREADS),
        .cpu = cpus[0],
    };
    printf("READY %d %d\n", (int)handler.tid, (int)source);
    fflush(stdout);
    wait_line();
    measure(&handler, &plan);
    wait_line();
    _exit(0); /* the handler waits for more; the source ends with its connection */
}
