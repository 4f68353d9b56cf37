/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The RDMA transport between two addresses of this host that a device has: what is READ and in which order
 * it completes, how one waits, what may be pinned, and what an end of a pair may look like.
 * What happens when something breaks is in transport_failures.c.
 *
 * Usage: rdma_transport NEAR-ADDRESS FAR-ADDRESS
 */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <infiniband/verbs.h>

#include "tests/rdma/rig.h"

static void all_words_arrive(void **state)
{
    Rig *rig = *state;
    enum { PIECE = 256 << 10, N = RIG_LENGTH / PIECE };

    for (uint64_t i = 0; i < N; i++) {
        RdmaRead read = rig_read(rig, i * PIECE, PIECE, i, true);
        RdmaCompletion done;

        assert_int_equal(rdma_pair_read(rig->reader, &read), 0);
        assert_true(rig_wait(rig->reader, &done));
        assert_false(done.failed);
        assert_null(done.reason);
        assert_int_equal(done.cookie, i);
        assert_true(rig_arrived(rig, i * PIECE, PIECE));
    }
}

static void only_the_bytes_asked_for_are_written(void **state)
{
    Rig *rig = *state;
    RdmaRead read = rig_read(rig, RIG_PAGE, RIG_PAGE, 7, true);
    RdmaCompletion done;

    assert_int_equal(rdma_pair_read(rig->reader, &read), 0);
    assert_true(rig_wait(rig->reader, &done));
    for (size_t i = 0; i < 4 * RIG_PAGE; i++)
        if (i < RIG_PAGE || i >= 2 * RIG_PAGE)
            assert_int_equal(rig->target[i], RIG_PATTERN);
    assert_true(rig_arrived(rig, RIG_PAGE, RIG_PAGE));
}

/* One that is the last of several tells of all of them, and only it does. */
static void the_last_one_tells_of_all(void **state)
{
    Rig *rig = *state;
    RdmaCompletion done[RIG_DEPTH];
    RdmaRead read;

    for (uint64_t i = 0; i < RIG_DEPTH; i++) {
        read = rig_read(rig, i * RIG_PAGE, RIG_PAGE, 100 + i, i + 1 == RIG_DEPTH);
        assert_int_equal(rdma_pair_read(rig->reader, &read), 0);
    }
    assert_true(rig_wait(rig->reader, done));
    assert_int_equal(done[0].cookie, 100 + RIG_DEPTH - 1);
    assert_false(done[0].failed);
    assert_true(rig_arrived(rig, 0, RIG_DEPTH * RIG_PAGE));
    assert_int_equal(rdma_pair_poll(rig->reader, done, RIG_DEPTH), 0);
}

static void no_more_than_depth_are_under_way(void **state)
{
    Rig *rig = *state;
    RdmaRead read = rig_read(rig, 0, RIG_PAGE, 0, true);
    RdmaCompletion done[2 * RIG_DEPTH];
    unsigned posted = 0, told = 0;

    for (; rdma_pair_read(rig->reader, &read) == 0; posted++)
        assert_true(posted < RIG_DEPTH);
    assert_int_equal(posted, RIG_DEPTH);
    assert_int_equal(rdma_pair_read(rig->reader, &read), -EAGAIN);
    while (told < posted && rig_wait(rig->reader, done))
        told++;
    assert_int_equal(told, RIG_DEPTH);
    assert_int_equal(rdma_pair_read(rig->reader, &read), 0);
    assert_true(rig_wait(rig->reader, done));
}

/* However many READs make up one fetch, room for the next of them comes back. */
static void room_comes_back_without_a_last(void **state)
{
    Rig *rig = *state;
    enum { N = 5 * RIG_DEPTH + 3 };
    uint64_t end = rig_now_ms() + RIG_BOUND_MS;
    RdmaCompletion done;

    for (uint64_t i = 0; i < N;) {
        RdmaRead read = rig_read(rig, i * RIG_PAGE, RIG_PAGE, i, i + 1 == N);
        int error = rdma_pair_read(rig->reader, &read);

        if (error == 0) {
            i++;
            continue;
        }
        assert_int_equal(error, -EAGAIN);
        assert_true(rig_now_ms() < end);
        assert_int_equal(rdma_pair_poll(rig->reader, &done, 1), 0);
    }
    assert_true(rig_wait(rig->reader, &done));
    assert_int_equal(done.cookie, N - 1);
    assert_true(rig_arrived(rig, 0, N * RIG_PAGE));
}

static void completions_come_in_the_order_of_posting(void **state)
{
    Rig *rig = *state;
    RdmaCompletion done[RIG_DEPTH];
    uint64_t posted = 0, told = 0;
    enum { N = 4 * RIG_DEPTH };

    while (told < N) {
        int n;

        while (posted < N) {
            /* Of different sizes: small ones may not overtake. */
            uint32_t length = posted % 3 ? RIG_PAGE : 8 * RIG_PAGE;
            RdmaRead read =
                rig_read(rig, posted * 8 * RIG_PAGE, length, posted, posted % 2 || posted + 1 == N);

            if (rdma_pair_read(rig->reader, &read))
                break;
            posted++;
        }
        n = rig_wait(rig->reader, done) + rdma_pair_poll(rig->reader, done + 1, RIG_DEPTH - 1);
        assert_true(n > 0);
        for (int i = 0; i < n; i++) {
            told = told / 2 * 2 + 1; /* only odd ones were asked for */
            assert_int_equal(done[i].cookie, told);
            assert_false(done[i].failed);
            assert_true(rig_arrived(rig, told * 8 * RIG_PAGE, told % 3 ? RIG_PAGE : 8 * RIG_PAGE));
            told++;
        }
    }
}

/* The file is readable after a completion that it was armed for, once, and never blocks. */
static void the_file_tells_what_it_was_armed_for(void **state)
{
    Rig *rig = *state;
    struct pollfd file = {.fd = rdma_pair_fd(rig->reader), .events = POLLIN};
    RdmaRead read = rig_read(rig, 0, RIG_PAGE, 1, true);
    RdmaCompletion done;

    rdma_pair_take_events(rig->reader); /* of an empty file: does not block */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(rdma_pair_arm(rig->reader), 0);
        assert_int_equal(poll(&file, 1, 20), 0);
        assert_int_equal(rdma_pair_read(rig->reader, &read), 0);
        assert_int_equal(poll(&file, 1, RIG_BOUND_MS), 1);
        rdma_pair_take_events(rig->reader);
        assert_int_equal(rdma_pair_poll(rig->reader, &done, 1), 1);
        assert_int_equal(poll(&file, 1, 0), 0);
    }
    /* Not armed: nobody is woken. */
    assert_int_equal(rdma_pair_read(rig->reader, &read), 0);
    assert_int_equal(poll(&file, 1, 100), 0);
    assert_int_equal(rdma_pair_poll(rig->reader, &done, 1), 1);
}

static void the_budget_is_kept(void **state)
{
    Rig *rig = *state;
    RdmaMemory *second = NULL;
    size_t left = RIG_BUDGET - rig->budget.used;
    void *room =
        mmap(NULL, left + RIG_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int error = 0;

    assert_int_equal(rig->budget.used, 2 * RIG_LENGTH);
    assert_null(rdma_memory_new(rig->near, room, left + RIG_PAGE, RDMA_ACCESS_STAGE, &error));
    assert_int_equal(error, -EDQUOT);
    assert_int_equal(rig->budget.used, 2 * RIG_LENGTH);
    assert_int_equal(rig->budget.peak, 2 * RIG_LENGTH);
    /* Where READs land, and what is READ, leaves the reserve. */
    assert_null(rdma_memory_new(rig->near, room, left, RDMA_ACCESS_LAND, &error));
    assert_int_equal(error, -EDQUOT);
    assert_null(rdma_memory_new(rig->near, room, left, RDMA_ACCESS_EXPORT, &error));
    assert_int_equal(error, -EDQUOT);
    assert_int_equal(rig->budget.used, 2 * RIG_LENGTH);
    second = rdma_memory_new(rig->near, room, left, RDMA_ACCESS_STAGE, &error);
    assert_non_null(second);
    assert_int_equal(rig->budget.used, RIG_BUDGET);
    assert_null(rdma_memory_new(rig->far, room, RIG_PAGE, RDMA_ACCESS_STAGE, &error));
    assert_int_equal(error, -EDQUOT);
    rdma_memory_free(second);
    assert_int_equal(rig->budget.used, 2 * RIG_LENGTH);
    assert_int_equal(rig->budget.peak, RIG_BUDGET);
    munmap(room, left + RIG_PAGE);
}

/* What cannot be pinned gives the budget back, too. */
static void memory_that_is_not_there_is_refused(void **state)
{
    Rig *rig = *state;
    void *hole = mmap(NULL, RIG_LENGTH, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t used = rig->budget.used;
    int error = 0;

    assert_null(rdma_memory_new(rig->near, hole, RIG_LENGTH, RDMA_ACCESS_STAGE, &error));
    assert_true(error < 0 && error != -EDQUOT);
    munmap(hole, RIG_LENGTH);
    assert_null(rdma_memory_new(rig->far, hole, RIG_LENGTH, RDMA_ACCESS_EXPORT, &error));
    assert_true(error < 0 && error != -EDQUOT);
    assert_int_equal(rig->budget.used, used);
}

static bool is_writable(const void *address)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    uintptr_t wanted = (uintptr_t)address, first, end;
    char line[512], mode[5];
    int found = 0;

    while (!found && fgets(line, sizeof line, maps))
        found =
            sscanf(line, "%lx-%lx %4s", &first, &end, mode) == 3 && first <= wanted && wanted < end;
    fclose(maps);
    assert_true(found);
    return mode[1] == 'w';
}

static void what_is_exported_cannot_be_written(void **state)
{
    Rig *rig = *state;

    assert_false(is_writable(rig->source));
    assert_true(is_writable(rig->target));
}

/* With nothing to wait for: status of a child that is an ordinary user with little memory to pin. */
static int pin_as_nobody(void)
{
    Rig rig = {.budget = {.most = RIG_BUDGET}};
    struct rlimit limit = {.rlim_cur = RIG_LENGTH / 2, .rlim_max = RIG_LENGTH / 2};
    char text[LIMIT_TEXT + 1];
    RdmaMemory *memory;
    RdmaDevice *device;
    void *room = mmap(NULL, RIG_LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int error = 0;

    rig_sockets(AF_INET, 0, rig_near_host, rig_far_host, &rig.near_socket, &rig.far_socket);
    device = rdma_device_open(rig.near_socket, &rig.budget, text);
    if (!device || setrlimit(RLIMIT_MEMLOCK, &limit) || setgid(65534) || setuid(65534))
        return 10;
    memory = rdma_memory_new(device, room, RIG_LENGTH, RDMA_ACCESS_STAGE, &error);
    if (memory || error != -ENOMEM)
        return 11;
    if (rig.budget.used != 0)
        return 12;
    rdma_memory_hint(RIG_LENGTH, text);
    if (!strstr(text, " 8192 KiB ") && !strstr(text, "8192 KiB could"))
        return 13;
    if (!strstr(text, " 4096 KiB") || !strstr(text, "LimitMEMLOCK") || strchr(text, '\n'))
        return 14;
    memory = rdma_memory_new(device, room, RIG_LENGTH / 4, RDMA_ACCESS_STAGE, &error);
    rdma_memory_free(memory);
    rdma_device_unref(device);
    return memory ? 0 : 15;
}

static void the_memlock_limit_is_told(void **state)
{
    pid_t child = fork();
    int status = 0;

    (void)state;
    if (child == 0)
        _exit(pin_as_nobody());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void refused(RdmaDevice *device, PeerRdmaEnd end)
{
    char text[LIMIT_TEXT + 1] = "";
    RdmaPair *pair = rig_pair(device, 0);

    assert_int_equal(rdma_pair_connect(pair, &end, text), -EPROTO);
    assert_non_null(strstr(text, "RDMA: the other side tells "));
    rdma_pair_free(pair);
}

#define REFUSED(...)             \
    do {                         \
        PeerRdmaEnd end = sound; \
        __VA_ARGS__;             \
        refused(rig->far, end);  \
    } while (0)

static void hostile_ends_are_refused(void **state)
{
    Rig *rig = *state;
    PeerRdmaEnd sound, own;
    char text[LIMIT_TEXT + 1];
    RdmaPair *pair;

    rdma_pair_describe(rig->reader, &sound);
    rdma_pair_describe(rig->answerer, &own);
    REFUSED(end.qpn = 0);
    REFUSED(end.qpn = 1);
    REFUSED(end.qpn = 1 << 24);
    REFUSED(end.qpn = UINT32_MAX);
    REFUSED(end.psn = 1 << 24);
    REFUSED(end.psn = UINT32_MAX);
    REFUSED(end.mtu = 0);
    REFUSED(end.mtu = IBV_MTU_4096 + 1);
    REFUSED(end.mtu = UINT8_MAX);
    REFUSED(end.link_layer = IBV_LINK_LAYER_UNSPECIFIED);
    REFUSED(end.link_layer = IBV_LINK_LAYER_INFINIBAND);
    REFUSED(end.link_layer = UINT8_MAX);
    REFUSED(end.lid = 1);
    REFUSED(end.reads = 0);
    REFUSED(memset(end.gid, 0, sizeof end.gid));
    REFUSED(memset(end.gid, 0xff, sizeof end.gid));
    REFUSED(memcpy(end.gid, own.gid, sizeof end.gid));
    REFUSED(end.gid[15] ^= 4);

    /* More than the device can have under way, and less. */
    for (unsigned reads = 1; reads <= UINT8_MAX; reads += UINT8_MAX - 1) {
        sound.reads = (uint8_t)reads;
        sound.mtu = reads == 1 ? IBV_MTU_256 : IBV_MTU_4096;
        pair = rig_pair(rig->far, 0);
        assert_int_equal(rdma_pair_connect(pair, &sound, text), 0);
        assert_int_equal(rdma_pair_connect(pair, &sound, text), -EISCONN);
        rdma_pair_free(pair);
    }
}

static void too_deep_a_pair_is_refused(void **state)
{
    Rig *rig = *state;
    char text[LIMIT_TEXT + 1] = "";

    assert_null(rdma_pair_new(rig->near, INT32_MAX, text));
    assert_non_null(strstr(text, rdma_device_name(rig->near)));
    assert_null(rdma_pair_new(rig->near, UINT32_MAX, text));
}

/* Connects two devices found by these addresses and READs a page. */
static void read_between(int family, unsigned scope, const char *near, const char *far)
{
    Rig rig = {.budget = {.most = RIG_BUDGET}};
    int error;
    RdmaRead read;
    RdmaCompletion done;

    rig_sockets(family, scope, near, far, &rig.near_socket, &rig.far_socket);
    rig.near = rig_open(&rig, rig.near_socket);
    rig.far = rig_open(&rig, rig.far_socket);
    rig.source = rig_source();
    rig.target = calloc(1, RIG_LENGTH);
    rig.exported = rdma_memory_new(rig.far, rig.source, RIG_LENGTH, RDMA_ACCESS_EXPORT, &error);
    rig.landing = rdma_memory_new(rig.near, rig.target, RIG_LENGTH, RDMA_ACCESS_STAGE, &error);
    rig.reader = rig_pair(rig.near, 1);
    rig.answerer = rig_pair(rig.far, 0);
    rig_connect(rig.reader, rig.answerer);
    read = rig_read(&rig, RIG_PAGE, RIG_PAGE, 3, true);
    assert_int_equal(rdma_pair_read(rig.reader, &read), 0);
    assert_true(rig_wait(rig.reader, &done));
    assert_false(done.failed);
    assert_true(rig_arrived(&rig, RIG_PAGE, RIG_PAGE));
    rdma_pair_free(rig.reader);
    rdma_pair_free(rig.answerer);
    rdma_memory_free(rig.exported);
    rdma_memory_free(rig.landing);
    rdma_device_unref(rig.near);
    rdma_device_unref(rig.far);
    free(rig.target);
    munmap(rig.source, RIG_LENGTH);
    close(rig.near_socket);
    close(rig.far_socket);
}

static void mapped_addresses_are_found(void **state)
{
    char near[64], far[64];

    (void)state;
    snprintf(near, sizeof near, "::ffff:%s", rig_near_host);
    snprintf(far, sizeof far, "::ffff:%s", rig_far_host);
    read_between(AF_INET6, 0, near, far);
}

/* The link-local address of the interface that has the near address. */
static void ipv6_addresses_are_found(void **state)
{
    char host[INET6_ADDRSTRLEN], name[IF_NAMESIZE] = "", text[INET6_ADDRSTRLEN] = "";
    struct ifaddrs *list;

    (void)state;
    assert_int_equal(getifaddrs(&list), 0);
    for (struct ifaddrs *one = list; one; one = one->ifa_next)
        if (one->ifa_addr && one->ifa_addr->sa_family == AF_INET &&
            inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)one->ifa_addr)->sin_addr, host,
                      sizeof host) &&
            strcmp(host, rig_near_host) == 0)
            snprintf(name, sizeof name, "%s", one->ifa_name);
    for (struct ifaddrs *one = list; one; one = one->ifa_next)
        if (one->ifa_addr && one->ifa_addr->sa_family == AF_INET6 && !strcmp(one->ifa_name, name))
            inet_ntop(AF_INET6, &((struct sockaddr_in6 *)(void *)one->ifa_addr)->sin6_addr, text,
                      sizeof text);
    freeifaddrs(list);
    assert_string_not_equal(name, "");
    assert_string_not_equal(text, "");
    read_between(AF_INET6, strncmp(text, "fe80", 4) ? 0 : if_nametoindex(name), text, text);
}

static void no_device(int socket, const char *why)
{
    RdmaBudget budget = {.most = RIG_BUDGET};
    char text[LIMIT_TEXT + 1] = "";

    assert_null(rdma_device_open(socket, &budget, text));
    assert_non_null(strstr(text, why));
    assert_null(strchr(text, '\n'));
}

static void what_is_no_network_has_no_device(void **state)
{
    int near, far, pair[2];

    (void)state;
    rig_sockets(AF_INET, 0, "127.0.0.1", "127.0.0.1", &near, &far);
    no_device(near, "loopback address 127.0.0.1");
    close(near);
    close(far);
    rig_sockets(AF_INET6, 0, "::1", "::1", &near, &far);
    no_device(near, "loopback address ::1");
    close(near);
    close(far);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    no_device(pair[0], "not one over IP");
    close(pair[0]);
    close(pair[1]);
    no_device(-1, "not one over IP");
}

static void devices_are_listed(void **state)
{
    Rig *rig = *state;
    char names[256], few[2];

    assert_true(rdma_list_devices(names, sizeof names) >= 1);
    assert_non_null(strstr(names, rdma_device_name(rig->near)));
    assert_true(rdma_list_devices(few, sizeof few) >= 1);
    assert_string_equal(few, ""); /* no half a name */
}

int main(int argc, char **argv)
{
#define WITH_RIG(test) cmocka_unit_test_setup_teardown(test, rig_up, rig_down)
    const struct CMUnitTest tests[] = {
        WITH_RIG(all_words_arrive),
        WITH_RIG(only_the_bytes_asked_for_are_written),
        WITH_RIG(the_last_one_tells_of_all),
        WITH_RIG(no_more_than_depth_are_under_way),
        WITH_RIG(room_comes_back_without_a_last),
        WITH_RIG(completions_come_in_the_order_of_posting),
        WITH_RIG(the_file_tells_what_it_was_armed_for),
        WITH_RIG(the_budget_is_kept),
        WITH_RIG(memory_that_is_not_there_is_refused),
        WITH_RIG(what_is_exported_cannot_be_written),
        cmocka_unit_test(the_memlock_limit_is_told),
        WITH_RIG(hostile_ends_are_refused),
        WITH_RIG(too_deep_a_pair_is_refused),
        cmocka_unit_test(mapped_addresses_are_found),
        cmocka_unit_test(ipv6_addresses_are_found),
        cmocka_unit_test(what_is_no_network_has_no_device),
        WITH_RIG(devices_are_listed),
    };
    int failed;

    if (argc != 3) {
        fprintf(stderr, "usage: rdma_transport NEAR-ADDRESS FAR-ADDRESS\n");
        return 2;
    }
    rig_near_host = argv[1];
    rig_far_host = argv[2];
    failed = cmocka_run_group_tests_name("transport", tests, NULL, NULL);
    failed += rig_run_failures();
    return failed ? 1 : 0;
}
