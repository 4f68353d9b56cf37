/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/core/process.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* since Linux 6.5; headers may be older than the kernel */
#endif

uint64_t process_start(int pid)
{
    char path[64], text[1024], *at;
    size_t n;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    file = fopen(path, "re");
    if (!file)
        return 0;
    n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = '\0';
    at = strrchr(text, ')'); /* the name may hold anything */
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at, NULL, 10) : 0;
}

/* Readable once the whole thread group has ended, waited for or not. */
bool process_has_ended(int pidfd)
{
    struct pollfd poll_fd = {.fd = pidfd, .events = POLLIN};

    return pidfd >= 0 && poll(&poll_fd, 1, 0) > 0;
}

/* The pidfd is opened first: a start that fits was read of the process it stands for, or of none. */
bool process_lives(int pid, uint64_t start)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    bool lives;

    if (pidfd < 0) /* no fd to be had is no proof of its death */
        return errno != ESRCH && start != 0 && process_start(pid) == start;
    lives = process_start(pid) == start && !process_has_ended(pidfd);
    close(pidfd);
    return lives;
}

int process_open_peer(int socket)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    int fd = -1;
    socklen_t fd_size = sizeof fd;

    if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &fd_size) == 0)
        return fd;
    if (errno != ENOPROTOOPT || getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
        return -errno;
    fd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
    return fd < 0 ? -errno : fd;
}

bool process_has_thread(int pid, uint32_t tid)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/task/%u", pid, tid);
    return access(path, F_OK) == 0;
}

/* The last number of the line NSpid: the id in the innermost namespace. 0: the thread is gone. */
static uint32_t own_id(int pid, const char *thread)
{
    char path[320], line[256];
    uint32_t id = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/task/%s/status", pid, thread);
    file = fopen(path, "re");
    if (!file)
        return 0;
    while (id == 0 && fgets(line, sizeof line, file)) {
        const char *last = strrchr(line, '\t');
        if (strncmp(line, "NSpid:", 6) == 0 && last)
            id = (uint32_t)strtoul(last + 1, NULL, 10);
    }
    fclose(file);
    return id;
}

static bool holds(const uint32_t *ids, uint32_t n, uint32_t id)
{
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

uint32_t process_find_threads(int pid, const uint32_t *ids, uint32_t n, uint32_t *ret_ids)
{
    const struct dirent *entry;
    char path[64];
    uint32_t found = 0;
    DIR *folder;

    snprintf(path, sizeof path, "/proc/%d/task", pid);
    folder = opendir(path);
    while (folder && found < n && (entry = readdir(folder))) {
        uint32_t id = entry->d_name[0] == '.' ? 0 : own_id(pid, entry->d_name);
        if (id != 0 && holds(ids, n, id))
            ret_ids[found++] = (uint32_t)strtoul(entry->d_name, NULL, 10);
    }
    if (folder)
        closedir(folder);
    return found;
}
