/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/affinity.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/fault/import.h"

enum { TASKS_MAX = 2 * LIMIT_VCPUS, STATUS_MAX = 4096 };

/* The last number of the line NSpid: a thread's id in its own pid namespace.  0: it is gone. */
static uint32_t inner_tid(int tasks, const char *tid)
{
    char path[64], text[STATUS_MAX];
    unsigned long inner = 0;
    const char *at;
    ssize_t n;
    int fd;

    snprintf(path, sizeof path, "%s/status", tid);
    fd = openat(tasks, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    at = strstr(text, "\nNSpid:");
    at = at ? at + strlen("\nNSpid:") : "";
    while (*at == '\t') {
        char *end;
        inner = strtoul(at, &end, 10);
        at = end;
    }
    return (uint32_t)inner;
}

void affinity_read(pid_t pid, const VcpuTable *table, const cpu_set_t *allowed, cpu_set_t *ret_cpus)
{
    struct dirent *entry;
    char path[64];
    DIR *tasks;

    for (uint32_t i = 0; i < table->n; i++)
        ret_cpus[i] = *allowed;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    tasks = opendir(path);
    if (!tasks)
        return;
    for (unsigned i = 0; i < TASKS_MAX && (entry = readdir(tasks));) {
        pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
        uint32_t vcpu;
        cpu_set_t cpus;

        if (entry->d_name[0] == '.')
            continue;
        i++;
        vcpu = vcpu_table_find(table, inner_tid(dirfd(tasks), entry->d_name));
        if (vcpu == table->n || sched_getaffinity(tid, sizeof cpus, &cpus))
            continue;
        CPU_AND(&cpus, &cpus, allowed);
        if (CPU_COUNT(&cpus) > 0)
            ret_cpus[vcpu] = cpus;
    }
    closedir(tasks);
}

bool affinity_choose(const cpu_set_t *allowed, const cpu_set_t *vcpus, uint32_t n_vcpus,
                     unsigned resolver, unsigned n_resolvers, bool home, cpu_set_t *ret_cpus)
{
    bool alike = true;

    CPU_ZERO(ret_cpus);
    for (uint32_t i = 0; i < n_vcpus; i++) {
        if (home && i % n_resolvers != resolver)
            continue;
        alike = alike && CPU_EQUAL(&vcpus[i], &vcpus[0]);
        CPU_OR(ret_cpus, ret_cpus, &vcpus[i]);
    }
    if (!home && n_resolvers > 1 && !alike)
        return false;
    return CPU_COUNT(ret_cpus) > 0 && !CPU_EQUAL(ret_cpus, allowed);
}

static void follow(const Import *import, Resolver *resolver, const cpu_set_t *allowed,
                   const cpu_set_t *vcpus, uint32_t n_vcpus)
{
    bool home = import->config.dispatch == IMPORT_DISPATCH_HOME;
    cpu_set_t cpus;
    bool follows =
        affinity_choose(allowed, vcpus, n_vcpus, resolver->index, import->n_resolvers, home, &cpus);

    /* One that never followed anybody is where an operator may have put it. */
    if (resolver->started && (follows || resolver->follows) &&
        pthread_setaffinity_np(resolver->thread, sizeof cpus, follows ? &cpus : allowed) == 0)
        resolver->follows = follows;
    atomic_fetch_add_explicit(&resolver->moves, 1, memory_order_release);
}

void affinity_apply(Import *import)
{
    const VcpuTable *table = atomic_load(&import->vcpus);
    cpu_set_t allowed, *vcpus;

    if (import->n_resolvers == 0 || sched_getaffinity(0, sizeof allowed, &allowed))
        return;
    vcpus = calloc(table->n + 1, sizeof *vcpus);
    if (!vcpus)
        return;
    affinity_read(import->client_pid, table, &allowed, vcpus);
    for (unsigned i = 0; i < import->n_resolvers; i++)
        follow(import, &import->resolvers[i], &allowed, vcpus, table->n);
    /* For a resolver that has ended, as one does that cannot make its ring, glibc 2.36 moves the caller. */
    sched_setaffinity(0, sizeof allowed, &allowed);
    free(vcpus);
}

unsigned affinity_cores_wanted(uint32_t n_vcpus, unsigned n_resolvers, bool assist)
{
    return (n_vcpus > 0 ? n_vcpus : 1) + n_resolvers + (assist ? 2 : 1);
}

/*
 * Looking for work takes a core.  The cores are those it may use now: it may have followed its vCPUs to
 * theirs.
 */
static uint64_t busy_poll_ns(const Import *import)
{
    const VcpuTable *vcpus = atomic_load(&import->vcpus);
    unsigned wanted =
        affinity_cores_wanted(vcpus->n, import->config.resolvers, import->config.assist);
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) || (unsigned)CPU_COUNT(&set) < wanted)
        return 0;
    return UINT64_C(1000) * import->config.busy_poll_us;
}

void affinity_heed(Resolver *resolver)
{
    unsigned moves = atomic_load_explicit(&resolver->moves, memory_order_acquire);

    if (moves == resolver->heeded)
        return;
    resolver->heeded = moves;
    spin_init(&resolver->ring.spin, busy_poll_ns(resolver->import));
}
