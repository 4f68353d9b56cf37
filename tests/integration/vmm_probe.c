/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/integration/vmm_probe.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/integration/vmm_load.h"

typedef struct ProbeThread {
    const VmmProbe *probe;
    pthread_barrier_t *barrier;
    pthread_t thread;
    unsigned index;
    int cpu; /* -1: any */
    uint32_t tid;
    uint64_t first, n; /* places */
    uint64_t bad;
    bool failed;
} ProbeThread;

static void touch_all(ProbeThread *self)
{
    const VmmMemory *memory = self->probe->memory;

    for (uint64_t i = self->first; i < self->first + self->n; i++) {
        uint64_t page = vmm_memory_page(memory, i);
        const uint64_t *words = vmm_memory_words(memory, page);
        uint64_t key = vmm_key(memory, page, 0);

        for (unsigned w = 0; w < VMM_WORDS; w++)
            self->bad += __atomic_load_n(&words[w], __ATOMIC_RELAXED) != vmm_word(key, w);
    }
}

static void *run(void *argument)
{
    ProbeThread *self = argument;
    cpu_set_t cpus;

    if (self->cpu >= 0) {
        CPU_ZERO(&cpus);
        CPU_SET((unsigned)self->cpu, &cpus);
        self->failed = sched_setaffinity(0, sizeof cpus, &cpus) != 0;
    }
    self->tid = (uint32_t)gettid();
    pthread_barrier_wait(self->barrier); /* all have an id, */
    pthread_barrier_wait(self->barrier); /* and were told of */
    touch_all(self);
    return NULL;
}

/* The CPU of thread number index in a list like "0,1"; -1: any. */
static int cpu_of(const char *cpus, unsigned index)
{
    int list[CPU_SETSIZE];
    unsigned n = 0;

    while (*cpus && n < CPU_SETSIZE) {
        char *end;
        list[n++] = (int)strtoul(cpus, &end, 10) % CPU_SETSIZE;
        cpus = *end == ',' ? end + 1 : "";
    }
    return n ? list[index % n] : -1;
}

bool vmm_probe(const VmmProbe *probe)
{
    static ProbeThread threads[VMM_THREADS];
    unsigned n = probe->n_threads;
    uint32_t tids[VMM_THREADS];
    pthread_barrier_t barrier;
    bool failed = false;

    if (n * (n + 1) / 2 * probe->step > probe->memory->shape.n_filled)
        return false;
    pthread_barrier_init(&barrier, NULL, n + 1);
    for (unsigned i = 0; i < n; i++) {
        threads[i] = (ProbeThread){
            .probe = probe,
            .barrier = &barrier,
            .index = i,
            .cpu = cpu_of(probe->cpus, i),
            .first = (uint64_t)i * (i + 1) / 2 * probe->step,
            .n = (i + 1) * probe->step,
        };
        if (pthread_create(&threads[i].thread, NULL, run, &threads[i]))
            abort();
    }
    pthread_barrier_wait(&barrier);
    for (unsigned i = 0; i < n; i++)
        tids[i] = threads[i].tid;
    probe->tell(probe->user, tids, n);
    pthread_barrier_wait(&barrier);
    for (unsigned i = 0; i < n; i++) {
        ProbeThread *thread = &threads[i];
        pthread_join(thread->thread, NULL);
        failed = failed || thread->failed;
        probe->print("PROBED vcpu=%u tid=%u pages=%" PRIu64 " bad=%" PRIu64 "\n", i, thread->tid,
                     thread->n, thread->bad);
    }
    pthread_barrier_destroy(&barrier);
    return !failed;
}
