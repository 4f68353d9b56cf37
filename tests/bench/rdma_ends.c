/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/bench/rdma_ends.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "tests/bench/bench_common.h"

static struct sockaddr_in address_of(const char *host)
{
    struct sockaddr_in address = {.sin_family = AF_INET};

    if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
        bench_die("%s is no address", host);
    return address;
}

/* A TCP connection between the two, by which each end's device is found. */
static void connect_sockets(const char *near, const char *far, int *ret_near, int *ret_far)
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

static void end_init(RdmaEnd *end, int socket, unsigned depth, RdmaAccess access, size_t length)
{
    static RdmaBudget budget = {.most = UINT64_MAX};
    char text[LIMIT_TEXT + 1];
    int error;

    end->device = rdma_device_open(socket, &budget, text);
    end->pair = end->device ? rdma_pair_new(end->device, depth, text) : NULL;
    if (!end->pair)
        bench_die("%s", text);
    end->memory = rdma_memory_new(end->device, end->pages, length, access, &error);
    if (!end->memory)
        bench_die("memory for a device: %s", strerror(-error));
}

static void join(RdmaEnds *ends)
{
    char text[LIMIT_TEXT + 1];
    PeerRdmaEnd near, far;

    rdma_pair_describe(ends->near.pair, &near);
    rdma_pair_describe(ends->far.pair, &far);
    if (rdma_pair_connect(ends->far.pair, &near, text) ||
        rdma_pair_connect(ends->near.pair, &far, text))
        bench_die("%s", text);
}

void rdma_ends_init(RdmaEnds *ends, const char *near_address, const char *far_address, void *to,
                    size_t length)
{
    int near, far;

    ends->near.pages = to;
    ends->far.pages = mmap(NULL, length, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (ends->far.pages == MAP_FAILED)
        bench_die("mmap of %zu bytes", length);
    connect_sockets(near_address, far_address, &near, &far);
    end_init(&ends->near, near, 1, RDMA_ACCESS_LAND, length);
    end_init(&ends->far, far, 0, RDMA_ACCESS_EXPORT, length);
    join(ends);
}

void rdma_ends_read(const RdmaEnds *ends, uint64_t offset)
{
    const RdmaRead read = {
        .to = ends->near.pages + offset,
        .lkey = rdma_memory_lkey(ends->near.memory),
        .length = BENCH_PAGE,
        .from = (uintptr_t)ends->far.pages + offset,
        .rkey = rdma_memory_rkey(ends->far.memory),
        .last = true,
    };
    RdmaCompletion done;
    int n;

    if (rdma_pair_read(ends->near.pair, &read))
        bench_die("a READ cannot be posted");
    while ((n = rdma_pair_poll(ends->near.pair, &done, 1)) == 0)
        ;
    if (n < 0 || done.failed)
        bench_die("a READ failed");
}
