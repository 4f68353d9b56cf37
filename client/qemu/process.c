/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/process.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Not a guest's doing alone: making a vCPU costs some, too. */
enum { TICKS_OF_A_GUEST = 10 };

enum { UTIME_FIELD = 14 }; /* of /proc/PID/stat */

static bool look_at_exe(void)
{
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    const char *base;

    if (length <= 0)
        return false;
    path[length] = '\0';
    base = strrchr(path, '/');
    base = base ? base + 1 : path;
    return strncmp(base, "qemu-system", 11) == 0 || strcmp(base, "qemu-kvm") == 0 ||
           strcmp(base, "kvm") == 0;
}

bool process_is_qemu(void)
{
    static int known; /* 0: not yet; threads that race here find the same */
    int is = __atomic_load_n(&known, __ATOMIC_RELAXED);

    if (!is) {
        is = look_at_exe() ? 1 : -1;
        __atomic_store_n(&known, is, __ATOMIC_RELAXED);
    }
    return is > 0;
}

bool process_is_owner(void)
{
    static pid_t owner;
    pid_t self = getpid();
    pid_t none = 0;

    return __atomic_compare_exchange_n(&owner, &none, self, false, __ATOMIC_RELAXED,
                                       __ATOMIC_RELAXED) ||
           none == self;
}

/* Which vCPU a thread of this id is, by the name QEMU gave it, or -1. */
static int vcpu_number(const char *tid)
{
    char path[64], name[32] = "";
    const char *kind;
    char *end;
    long number;
    FILE *file;

    snprintf(path, sizeof path, "/proc/self/task/%.16s/comm", tid);
    file = fopen(path, "re");
    if (!file)
        return -1;
    if (!fgets(name, sizeof name, file))
        name[0] = '\0';
    fclose(file);
    if (strncmp(name, "CPU ", 4) != 0)
        return -1;
    number = strtol(name + 4, &end, 10);
    kind = end;
    if (end == name + 4 || number < 0 || number > INT_MAX ||
        (strcmp(kind, "/KVM\n") != 0 && strcmp(kind, "/TCG\n") != 0))
        return -1;
    return (int)number;
}

size_t process_vcpus(uint32_t *ret_tids, size_t max)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *entry;
    size_t n = 0;

    if (!tasks)
        return 0;
    memset(ret_tids, 0, max * sizeof *ret_tids);
    while ((entry = readdir(tasks))) {
        int number = vcpu_number(entry->d_name);
        if (number < 0 || (size_t)number >= max)
            continue;
        ret_tids[number] = (uint32_t)strtoul(entry->d_name, NULL, 10);
        if (n <= (size_t)number)
            n = (size_t)number + 1;
    }
    closedir(tasks);
    return n;
}

/* In clock ticks, time in the guest included. */
static unsigned long user_time(uint32_t tid)
{
    char path[64], text[512];
    const char *at;
    FILE *file;

    snprintf(path, sizeof path, "/proc/self/task/%u/stat", tid);
    file = fopen(path, "re");
    if (!file)
        return 0;
    if (!fgets(text, sizeof text, file))
        text[0] = '\0';
    fclose(file);
    /* The name, in brackets, is field 2 and may hold anything; utime is field 14. */
    at = strrchr(text, ')');
    for (int field = 2; at && field < UTIME_FIELD; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoul(at, NULL, 10) : 0;
}

bool process_vcpus_have_run(const uint32_t *tids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (tids[i] && user_time(tids[i]) >= TICKS_OF_A_GUEST)
            return true;
    return false;
}

bool process_has_vfio(void)
{
    DIR *fds = opendir("/proc/self/fd");
    struct dirent *entry;
    bool found = false;

    if (!fds)
        return false;
    while (!found && (entry = readdir(fds))) {
        char link[64];
        ssize_t length = readlinkat(dirfd(fds), entry->d_name, link, sizeof link - 1);
        link[length > 0 ? length : 0] = '\0';
        found = strncmp(link, "/dev/vfio/", 10) == 0;
    }
    closedir(fds);
    return found;
}
