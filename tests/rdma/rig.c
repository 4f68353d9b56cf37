/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/rdma/rig.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

const char *rig_near_host, *rig_far_host;

uint64_t rig_word(uint64_t index)
{
    return (index + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

uint64_t rig_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static socklen_t address_of(int family, unsigned scope, const char *host,
                            struct sockaddr_storage *ret)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_scope_id = scope};

    memset(ret, 0, sizeof *ret);
    if (family == AF_INET) {
        assert_int_equal(inet_pton(AF_INET, host, &v4.sin_addr), 1);
        memcpy(ret, &v4, sizeof v4);
        return sizeof v4;
    }
    assert_int_equal(inet_pton(AF_INET6, host, &v6.sin6_addr), 1);
    memcpy(ret, &v6, sizeof v6);
    return sizeof v6;
}

void rig_sockets(int family, unsigned scope, const char *near, const char *far, int *ret_near,
                 int *ret_far)
{
    struct sockaddr_storage far_address, near_address;
    socklen_t length = address_of(family, scope, far, &far_address);
    int listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address_of(family, scope, near, &near_address);
    assert_int_equal(bind(listener, (struct sockaddr *)&far_address, length), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&far_address, &length), 0);
    *ret_near = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(*ret_near, (struct sockaddr *)&near_address, length), 0);
    assert_int_equal(connect(*ret_near, (struct sockaddr *)&far_address, length), 0);
    *ret_far = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(*ret_far >= 0);
    close(listener);
}

RdmaDevice *rig_open(Rig *rig, int socket)
{
    char text[LIMIT_TEXT + 1];
    RdmaDevice *device = rdma_device_open(socket, &rig->budget, text);

    if (!device)
        fail_msg("%s", text);
    return device;
}

RdmaPair *rig_pair(RdmaDevice *device, unsigned depth)
{
    char text[LIMIT_TEXT + 1];
    RdmaPair *pair = rdma_pair_new(device, depth, text);

    if (!pair)
        fail_msg("%s", text);
    return pair;
}

void rig_connect(RdmaPair *one, RdmaPair *other)
{
    char text[LIMIT_TEXT + 1] = "";
    PeerRdmaEnd ends[2];

    rdma_pair_describe(one, &ends[0]);
    rdma_pair_describe(other, &ends[1]);
    if (rdma_pair_connect(other, &ends[0], text) || rdma_pair_connect(one, &ends[1], text))
        fail_msg("%s", text);
}

uint64_t *rig_source(void)
{
    int file = memfd_create("source", MFD_CLOEXEC);
    uint64_t *words;

    assert_int_equal(ftruncate(file, RIG_LENGTH), 0);
    words = mmap(NULL, RIG_LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    assert_true(words != MAP_FAILED);
    for (uint64_t i = 0; i < RIG_LENGTH / sizeof *words; i++)
        words[i] = rig_word(i);
    munmap(words, RIG_LENGTH);
    words = mmap(NULL, RIG_LENGTH, PROT_READ, MAP_SHARED, file, 0);
    assert_true(words != MAP_FAILED);
    close(file);
    return words;
}

static RdmaMemory *memory(RdmaDevice *device, void *address, RdmaAccess access)
{
    int error = 1;
    RdmaMemory *made = rdma_memory_new(device, address, RIG_LENGTH, access, &error);

    if (!made)
        fail_msg("%s", strerror(-error));
    assert_int_equal(error, 0);
    return made;
}

int rig_up(void **state)
{
    Rig *rig = calloc(1, sizeof *rig);

    rig->budget.most = RIG_BUDGET;
    rig_sockets(AF_INET, 0, rig_near_host, rig_far_host, &rig->near_socket, &rig->far_socket);
    rig->near = rig_open(rig, rig->near_socket);
    rig->far = rig_open(rig, rig->far_socket);
    rig->source = rig_source();
    rig->target = mmap(NULL, RIG_LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(rig->target != MAP_FAILED);
    memset(rig->target, RIG_PATTERN, RIG_LENGTH);
    rig->exported = memory(rig->far, rig->source, RDMA_ACCESS_EXPORT);
    rig->landing = memory(rig->near, rig->target, RDMA_ACCESS_LAND);
    rig->reader = rig_pair(rig->near, RIG_DEPTH);
    rig->answerer = rig_pair(rig->far, 0);
    rig_connect(rig->reader, rig->answerer);
    *state = rig;
    return 0;
}

int rig_down(void **state)
{
    Rig *rig = *state;
    uint64_t used;

    rdma_pair_free(rig->reader);
    rdma_pair_free(rig->answerer);
    rdma_memory_free(rig->exported);
    rdma_memory_free(rig->landing);
    rdma_device_unref(rig->near);
    rdma_device_unref(rig->far);
    munmap(rig->source, RIG_LENGTH);
    munmap(rig->target, RIG_LENGTH);
    close(rig->near_socket);
    close(rig->far_socket);
    used = rig->budget.used;
    free(rig);
    return used == 0 ? 0 : -1; /* all of the budget was given back */
}

RdmaRead rig_read(const Rig *rig, uint64_t offset, uint32_t length, uint64_t cookie, bool last)
{
    return (RdmaRead){
        .to = rig->target + offset,
        .lkey = rdma_memory_lkey(rig->landing),
        .length = length,
        .from = (uintptr_t)rig->source + offset,
        .rkey = rdma_memory_rkey(rig->exported),
        .cookie = cookie,
        .last = last,
    };
}

bool rig_arrived(const Rig *rig, uint64_t offset, uint64_t length)
{
    const uint64_t *words = (const uint64_t *)(const void *)(rig->target + offset);
    uint64_t first = offset / sizeof *words;

    for (uint64_t i = 0; i < length / sizeof *words; i++)
        if (words[i] != rig_word(first + i))
            return false;
    return true;
}

bool rig_wait(RdmaPair *pair, RdmaCompletion *ret)
{
    struct pollfd file = {.fd = rdma_pair_fd(pair), .events = POLLIN};
    uint64_t end = rig_now_ms() + RIG_BOUND_MS;
    int n = rdma_pair_poll(pair, ret, 1);

    while (n == 0 && rig_now_ms() < end) {
        assert_int_equal(rdma_pair_arm(pair), 0);
        n = rdma_pair_poll(pair, ret, 1);
        if (n != 0)
            break;
        if (poll(&file, 1, (int)(end - rig_now_ms())) > 0)
            rdma_pair_take_events(pair);
        n = rdma_pair_poll(pair, ret, 1);
    }
    assert_true(n >= 0);
    return n == 1;
}
