/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The floor of fetching one page by RDMA: READs of 4 KiB, one after another, each looked for until it is
 * complete, between two addresses of this host that a device has.
 *
 *   floor_rdma NEAR-ADDRESS FAR-ADDRESS CPU ROUNDS      (a CPU of -1: any)
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "daemon/transport/rdma_pair.h"
#include "tests/bench/bench_common.h"

enum { WARM_UP = 200, PAGES = 1024, DEPTH = 1 };

typedef struct End {
    RdmaDevice *device;
    RdmaPair *pair;
    RdmaMemory *memory;
    uint8_t *pages;
} End;

static struct sockaddr_in address_of(const char *host)
{
    struct sockaddr_in address = {.sin_family = AF_INET};

    if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
        bench_die("%s is no address", host);
    return address;
}

/* A TCP connection between the two, by which each end's device is found. */
static void connect_ends(const char *near, const char *far, int *ret_near, int *ret_far)
{
    struct sockaddr_in from = address_of(near), to = address_of(far);
    socklen_t length = sizeof to;
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    *ret_near = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&to, sizeof to) || listen(listener, 1) ||
        getsockname(listener, (struct sockaddr *)&to, &length) ||
        bind(*ret_near, (struct sockaddr *)&from, sizeof from) ||
        connect(*ret_near, (struct sockaddr *)&to, sizeof to) ||
        (*ret_far = accept(listener, NULL, NULL)) < 0)
        bench_die("a connection from %s to %s", near, far);
}

static void end_init(End *end, int socket, unsigned depth, RdmaAccess access)
{
    static RdmaBudget budget = {.most = UINT64_MAX};
    char text[LIMIT_TEXT + 1];
    int error;

    end->pages = mmap(NULL, PAGES * BENCH_PAGE, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    end->device = rdma_device_open(socket, &budget, text);
    end->pair = end->device ? rdma_pair_new(end->device, depth, text) : NULL;
    if (!end->pair)
        bench_die("%s", text);
    end->memory = rdma_memory_new(end->device, end->pages, PAGES * BENCH_PAGE, access, &error);
    if (!end->memory)
        bench_die("memory for a device: %s", strerror(-error));
}

static void join(End *near, End *far)
{
    char text[LIMIT_TEXT + 1];
    PeerRdmaEnd ends[2];

    rdma_pair_describe(near->pair, &ends[0]);
    rdma_pair_describe(far->pair, &ends[1]);
    if (rdma_pair_connect(far->pair, &ends[0], text) ||
        rdma_pair_connect(near->pair, &ends[1], text))
        bench_die("%s", text);
}

/* How long one READ took. */
static uint64_t read_page(const End *near, const End *far, uint64_t page)
{
    const RdmaRead read = {
        .to = near->pages + page * BENCH_PAGE,
        .lkey = rdma_memory_lkey(near->memory),
        .length = BENCH_PAGE,
        .from = (uintptr_t)far->pages + page * BENCH_PAGE,
        .rkey = rdma_memory_rkey(far->memory),
        .last = true,
    };
    RdmaCompletion done;
    uint64_t before = bench_now_ns();
    int n;

    if (rdma_pair_read(near->pair, &read))
        bench_die("a READ cannot be posted");
    while ((n = rdma_pair_poll(near->pair, &done, 1)) == 0)
        ;
    if (n < 0 || done.failed)
        bench_die("a READ failed");
    return bench_now_ns() - before;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    int sockets[2];
    End near, far;

    if (argc != 5)
        bench_die("usage: floor_rdma NEAR-ADDRESS FAR-ADDRESS CPU ROUNDS");
    uint64_t rounds = bench_number(argv[4], 1 << 24) + WARM_UP;
    uint64_t *took_ns = calloc(rounds, sizeof *took_ns);
    if (!took_ns)
        bench_die("memory");
    connect_ends(argv[1], argv[2], &sockets[0], &sockets[1]);
    end_init(&near, sockets[0], DEPTH, RDMA_ACCESS_LAND);
    end_init(&far, sockets[1], 0, RDMA_ACCESS_EXPORT);
    join(&near, &far);
    bench_pin(bench_cpu(argv[3]));
    for (uint64_t i = 0; i < rounds; i++)
        took_ns[i] = read_page(&near, &far, i * 7 % PAGES);
    qsort(took_ns + WARM_UP, rounds - WARM_UP, sizeof *took_ns, compare);
    printf("{\"p50_us\": %.2f, \"p99_us\": %.2f}\n",
           (double)took_ns[WARM_UP + (rounds - WARM_UP) / 2] / 1e3,
           (double)took_ns[WARM_UP + (rounds - WARM_UP) * 99 / 100] / 1e3);
    free(took_ns);
    rdma_pair_free(near.pair);
    rdma_pair_free(far.pair);
    return 0;
}
