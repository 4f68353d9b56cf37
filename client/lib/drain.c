/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/lib/drain.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "client/lib/uffd.h"

enum { START_FIELD = 22, BATCH = 64 };

/* Field 22 of /proc/PID/stat: with the pid it names a process for good. 0: it is not to be seen. */
static uint64_t start_of(uint64_t pid)
{
    char path[64], text[1024];
    const char *at;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%llu/stat", (unsigned long long)pid);
    file = fopen(path, "re");
    if (!file)
        return 0;
    if (!fgets(text, sizeof text, file))
        text[0] = '\0';
    fclose(file);
    at = strrchr(text, ')'); /* the name may hold anything */
    for (int field = 2; at && field < START_FIELD; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at, NULL, 10) : 0;
}

void drain_follow(Armed *armed)
{
    uint64_t pid = armed->table.header->holder_pid;
    uint64_t start = armed->table.header->holder_start;

    drain_end(armed);
    /* In another pid namespace, that number may be somebody else's, or nobody's. */
    if (start == 0 || start_of(pid) != start)
        return;
    armed->holder_pidfd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
    if (armed->holder_pidfd >= 0 && start_of(pid) != start)
        drain_end(armed);
}

void drain_end(Armed *armed)
{
    if (armed->holder_pidfd >= 0)
        close(armed->holder_pidfd);
    armed->holder_pidfd = -1;
}

/* A pidfd is readable once the last thread of its process is gone. */
static bool holder_is_dead(const Armed *armed)
{
    struct pollfd holder = {.fd = armed->holder_pidfd, .events = POLLIN};

    return armed->holder_pidfd >= 0 && poll(&holder, 1, 0) == 1;
}

/* Nothing can place the page any more, nor can anything have it in flight. */
static void remove_range(Armed *armed, const Regions *regions, uint32_t index, uint64_t start,
                         uint64_t end, bool unmapped)
{
    const ClientShard *shard = &armed->shards[index];
    const Region *region = &regions->list[shard->region];
    uint64_t from = (uintptr_t)region->address + shard->start;
    uint64_t first, count;

    if (start < from)
        start = from;
    if (end > from + shard->length)
        end = from + shard->length;
    if (start >= end)
        return;
    first = (start - (uintptr_t)region->address) / region->page_size;
    count = (end - start + region->page_size - 1) / region->page_size;
    table_remove(&armed->table, shard->region, first, count);
    if (!unmapped && region->backing == POSTCOPY_SHARED)
        (void)fallocate(region->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        (off_t)(region->fd_offset + first * region->page_size),
                        (off_t)(count * region->page_size));
}

static void heed(Armed *armed, const Regions *regions, uint32_t index)
{
    struct uffd_msg messages[BATCH];
    ssize_t length;

    while ((length = read(armed->uffds[index], messages, sizeof messages)) > 0)
        for (size_t i = 0; i < (size_t)length / sizeof messages[0]; i++)
            if (messages[i].event == UFFD_EVENT_REMOVE || messages[i].event == UFFD_EVENT_UNMAP)
                remove_range(armed, regions, index, messages[i].arg.remove.start,
                             messages[i].arg.remove.end, messages[i].event == UFFD_EVENT_UNMAP);
}

static int time_left(const struct timespec *until)
{
    struct timespec now;
    long long left;

    clock_gettime(CLOCK_MONOTONIC, &now);
    left = (until->tv_sec - now.tv_sec) * 1000LL + (until->tv_nsec - now.tv_nsec) / 1000000;
    return left > 0 ? (int)left : 0;
}

static size_t watch_shards(const Armed *armed, uint32_t first, struct pollfd *polls,
                           uint32_t *ret_shards)
{
    size_t n = 0;

    for (uint32_t i = first; i < armed->n_shards; i++) {
        if (!(armed->shards[i].flags & CLIENT_SHARD_EVENTS))
            continue;
        polls[n] = (struct pollfd){.fd = armed->uffds[i], .events = POLLIN};
        ret_shards[n++] = i;
    }
    return n;
}

/* Faults stay readable once read no more than the events behind them: one look does not spin. */
void drain_wait(Armed *armed, const Regions *regions, int wake, int delay_ms)
{
    struct pollfd polls[1 + LIMIT_SHARDS] = {{.fd = wake, .events = POLLIN}};
    uint32_t shards[LIMIT_SHARDS];
    struct timespec until;
    size_t n = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += delay_ms / 1000;
    until.tv_nsec += delay_ms % 1000 * 1000000L;
    if (armed->active && holder_is_dead(armed))
        n = watch_shards(armed, 0, polls + 1, shards);
    while (poll(polls, 1 + n, time_left(&until)) > 0 && !polls[0].revents)
        for (size_t i = 0; i < n; i++)
            if (polls[1 + i].revents)
                heed(armed, regions, shards[i]);
}

static void *forget(void *argument)
{
    const Drainer *drainer = argument;
    struct pollfd polls[1 + LIMIT_SHARDS] = {{.fd = drainer->stop, .events = POLLIN}};
    struct uffd_msg messages[BATCH];
    uint32_t shards[LIMIT_SHARDS];
    size_t n = watch_shards(drainer->armed, drainer->first, polls + 1, shards);

    while (poll(polls, 1 + n, -1) < 0 || !polls[0].revents)
        for (size_t i = 0; i < n; i++)
            while (polls[1 + i].revents && read(polls[1 + i].fd, messages, sizeof messages) > 0)
                ;
    return NULL;
}

int drain_begin(Drainer *drainer, const Armed *armed, uint32_t first)
{
    bool needed = false;
    int error;

    *drainer = (Drainer){.armed = armed, .first = first, .stop = -1};
    for (uint32_t i = first; i < armed->n_shards; i++)
        needed = needed || (armed->shards[i].flags & CLIENT_SHARD_EVENTS);
    if (!needed)
        return 0;
    drainer->stop = eventfd(0, EFD_CLOEXEC);
    if (drainer->stop < 0)
        return -errno;
    error = pthread_create(&drainer->thread, NULL, forget, drainer);
    if (error) {
        close(drainer->stop);
        drainer->stop = -1;
    }
    return -error;
}

void drain_finish(Drainer *drainer, const Regions *regions)
{
    const Armed *armed = drainer->armed;

    if (drainer->stop < 0)
        return;
    eventfd_write(drainer->stop, 1);
    pthread_join(drainer->thread, NULL);
    close(drainer->stop);
    for (uint32_t i = drainer->first; i < armed->n_shards; i++)
        uffd_wake_range(armed->uffds[i],
                        regions->list[armed->shards[i].region].address + armed->shards[i].start,
                        armed->shards[i].length);
}
