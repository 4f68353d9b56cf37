/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/bench/bench_common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void bench_die(const char *format, ...)
{
    int error = errno;
    va_list arguments;

    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, error ? ": %s\n" : "\n", strerror(error));
    exit(2);
}

uint64_t bench_number(const char *text, uint64_t max)
{
    char *end;
    uint64_t value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (end == text || *end || errno || value > max) {
        errno = 0;
        bench_die("%s: not a number up to %llu", text, (unsigned long long)max);
    }
    return value;
}

int bench_cpu(const char *text)
{
    return strcmp(text, "-1") == 0 ? -1 : (int)bench_number(text, 1023);
}

uint64_t bench_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

BenchCost bench_cost(pid_t tid)
{
    BenchCost cost = {0};
    char path[64], line[256];
    FILE *file;

    snprintf(path, sizeof path, "/proc/self/task/%d/schedstat", (int)tid);
    file = fopen(path, "re");
    if (!file || fscanf(file, "%lu", &cost.cpu_ns) != 1)
        bench_die("%s", path);
    fclose(file);
    snprintf(path, sizeof path, "/proc/self/task/%d/status", (int)tid);
    file = fopen(path, "re");
    if (!file)
        bench_die("%s", path);
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "voluntary_ctxt_switches: %lu", &cost.sleeps) == 1)
            break;
    fclose(file);
    return cost;
}

void bench_pin(int cpu)
{
    cpu_set_t set;

    if (cpu < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        bench_die("CPU %d", cpu);
}

/* --- memory -------------------------------------------------------------------------------- */

static const char *const kind_names[] = {
    [BENCH_ANONYMOUS] = "anonymous",
    [BENCH_MEMFD] = "memfd",
    [BENCH_CONTINUE] = "continue",
};

BenchKind bench_kind(const char *name)
{
    for (BenchKind kind = BENCH_ANONYMOUS; kind <= BENCH_CONTINUE; kind++)
        if (strcmp(name, kind_names[kind]) == 0)
            return kind;
    errno = 0;
    bench_die("%s: not anonymous, memfd or continue", name);
}

const char *bench_kind_name(BenchKind kind)
{
    return kind_names[kind];
}

static void *map(uint64_t length, int flags, int fd)
{
    void *address = mmap(NULL, length, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd, 0);

    if (address == MAP_FAILED)
        bench_die("mmap of %lu bytes", (unsigned long)length);
    return address;
}

void bench_memory_init(BenchMemory *memory, BenchKind kind, uint64_t length)
{
    *memory = (BenchMemory){.kind = kind, .length = length, .fd = -1, .uffd = -1};
    if (kind == BENCH_ANONYMOUS) {
        memory->guest = map(length, MAP_PRIVATE | MAP_ANONYMOUS, -1);
        madvise(memory->guest, length, MADV_NOHUGEPAGE);
        return;
    }
    memory->fd = memfd_create("bench", MFD_CLOEXEC);
    if (memory->fd < 0 || ftruncate(memory->fd, (off_t)length))
        bench_die("memfd");
    memory->guest = map(length, MAP_SHARED, memory->fd);
    if (kind == BENCH_CONTINUE)
        memory->alias = map(length, MAP_SHARED | MAP_POPULATE, memory->fd);
}

void bench_memory_register(BenchMemory *memory, bool blocking)
{
    bool minor = memory->kind == BENCH_CONTINUE;
    struct uffdio_api api = {
        .api = UFFD_API,
        .features = minor ? UFFD_FEATURE_MINOR_SHMEM : 0,
    };
    struct uffdio_register range = {
        .range = {.start = (uintptr_t)memory->guest, .len = memory->length},
        .mode = UFFDIO_REGISTER_MODE_MISSING | (minor ? UFFDIO_REGISTER_MODE_MINOR : 0),
    };

    memory->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | (blocking ? 0 : O_NONBLOCK));
    if (memory->uffd < 0)
        bench_die("userfaultfd");
    if (ioctl(memory->uffd, UFFDIO_API, &api) || ioctl(memory->uffd, UFFDIO_REGISTER, &range))
        bench_die("userfaultfd: registering %s memory", bench_kind_name(memory->kind));
}

void bench_memory_continue(const BenchMemory *memory, uint64_t offset, uint64_t length, bool wake)
{
    struct uffdio_continue argument = {
        .range = {.start = (uintptr_t)memory->guest + offset, .len = length},
        .mode = wake ? 0 : UFFDIO_CONTINUE_MODE_DONTWAKE,
    };

    if (ioctl(memory->uffd, UFFDIO_CONTINUE, &argument))
        bench_die("UFFDIO_CONTINUE");
}

void bench_memory_place(const BenchMemory *memory, uint64_t offset, const void *data,
                        uint64_t length, bool wake)
{
    struct uffdio_copy argument = {
        .dst = (uintptr_t)memory->guest + offset,
        .src = (uintptr_t)data,
        .len = length,
        .mode = wake ? 0 : UFFDIO_COPY_MODE_DONTWAKE,
    };

    if (memory->kind == BENCH_CONTINUE) {
        memcpy(memory->alias + offset, data, length);
        bench_memory_continue(memory, offset, length, wake);
    } else if (ioctl(memory->uffd, UFFDIO_COPY, &argument)) {
        bench_die("UFFDIO_COPY");
    }
}

bool bench_memory_fault(const BenchMemory *memory, uint64_t *ret_offset)
{
    struct uffd_msg message;
    ssize_t n = read(memory->uffd, &message, sizeof message);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n != sizeof message || message.event != UFFD_EVENT_PAGEFAULT)
        bench_die("reading a fault");
    *ret_offset = (message.arg.pagefault.address & ~UINT64_C(4095)) - (uintptr_t)memory->guest;
    return true;
}

/* --- sockets ------------------------------------------------------------------------------- */

int bench_listen(uint16_t *ret_port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) ||
        listen(listener, 8) || getsockname(listener, (struct sockaddr *)&address, &length))
        bench_die("listening");
    *ret_port = ntohs(address.sin_port);
    return listener;
}

static int without_delay(int connection)
{
    int one = 1;

    if (connection < 0 || setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one))
        bench_die("connecting");
    return connection;
}

int bench_accept(int listener)
{
    return without_delay(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
}

int bench_connect(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (connection >= 0 && connect(connection, (struct sockaddr *)&address, sizeof address))
        bench_die("connecting");
    return without_delay(connection);
}

void bench_send(int socket, const void *data, uint64_t length)
{
    while (length > 0) {
        ssize_t n = send(socket, data, length, MSG_NOSIGNAL);
        if (n <= 0)
            bench_die("sending");
        data = (const uint8_t *)data + n;
        length -= (uint64_t)n;
    }
}

void bench_receive(int socket, void *data, uint64_t length)
{
    while (length > 0) {
        ssize_t n = recv(socket, data, length, MSG_WAITALL);
        if (n <= 0)
            bench_die("receiving");
        data = (uint8_t *)data + n;
        length -= (uint64_t)n;
    }
}
