/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/watcher.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/lib/postcopy.h"
#include "client/qemu/log.h"
#include "client/qemu/process.h"
#include "client/qemu/ram.h"

enum {
    SETTLE_MS = 50, /* QEMU maps its blocks one after another */
    TICK_MS = 100,
    SLOW_TICK_MS = 1000,
    QUICK_TICKS = 20, /* vCPU threads come soon after the memory */
    VCPU_TICKS = 60,  /* and if not by then, QEMU does not name its threads */
    VCPUS_MAX = 4096,
};

typedef struct Watcher {
    postcopy *pc;
    QemuOptions options;
    unsigned ticks;
    size_t n_vcpus;
    uint32_t vcpus[VCPUS_MAX];
    bool may_have_arrived; /* -incoming, and nobody brought the memory so far as we know */
    bool pending;          /* blocks wait until the memory is no longer in use */
    int shared;            /* atomic: shared memory was handed on */
    int armed;             /* atomic: by libpostcopy's events */
} Watcher;

static struct postcopy_region as_region(const Watcher *watcher, const RamBlock *block)
{
    /* Ids and guest addresses are QEMU's own; whoever drives the migration tells them the daemon. */
    return (struct postcopy_region){
        .guest_address = POSTCOPY_GUEST_ADDRESS_UNKNOWN,
        .address = block->address,
        .length = block->length,
        .page_size = block->page_size,
        .backing = POSTCOPY_SHARED,
        .fd = block->fd,
        .fd_offset = block->fd_offset,
        .flags = watcher->options.gives_back ? POSTCOPY_REGION_REMOVABLE : 0,
    };
}

static void add_pending(Watcher *watcher)
{
    RamBlock blocks[RAM_MAX];
    size_t n = ram_take(blocks);

    watcher->pending = false;
    for (size_t i = 0; i < n; i++) {
        struct postcopy_region region = as_region(watcher, &blocks[i]);
        __atomic_store_n(&watcher->shared, 1, __ATOMIC_RELEASE);
        int error = postcopy_add_region(watcher->pc, &region);
        log_line("memory at %p, %llu bytes: %s", region.address, (unsigned long long)region.length,
                 error ? postcopy_error(watcher->pc) : "added");
        if (error == -EBUSY) {
            ram_put_back(&blocks[i]);
            watcher->pending = true;
        } else {
            close(blocks[i].fd);
        }
    }
}

static const char *refuse(void *user, enum postcopy_role role)
{
    Watcher *watcher = user;
    uint32_t vcpus[VCPUS_MAX];

    if (!__atomic_load_n(&watcher->shared, __ATOMIC_ACQUIRE))
        return "guest RAM is private memory, so assist mode only; direct mode needs "
               "-object memory-backend-memfd,share=on,… and -machine memory-backend=…";
    if (process_has_vfio())
        return "a VFIO device pins this guest's memory";
    if (watcher->options.vhost_user)
        return "a vhost-user backend maps this guest's memory a second time";
    /* Arming empties the memory: never that of a guest which came here by other means. */
    if (role == POSTCOPY_DESTINATION &&
        process_vcpus_have_run(vcpus, process_vcpus(vcpus, VCPUS_MAX)))
        return "this guest has run already";
    return NULL;
}

static const char *event_name(enum postcopy_event event)
{
    static const char *const names[] = {
        [POSTCOPY_ARMED] = "armed",         [POSTCOPY_RUNNING] = "running",
        [POSTCOPY_PAUSED] = "paused",       [POSTCOPY_RELEASED] = "released",
        [POSTCOPY_CANCELLED] = "cancelled", [POSTCOPY_FENCED] = "fenced",
        [POSTCOPY_BROKEN] = "broken",       [POSTCOPY_EXPORTED] = "exported",
        [POSTCOPY_SEALED] = "sealed",       [POSTCOPY_DONE] = "done",
        [POSTCOPY_CONNECTED] = "connected", [POSTCOPY_DISCONNECTED] = "disconnected",
    };

    return (size_t)event < sizeof names / sizeof names[0] && names[event] ? names[event] : "?";
}

static void notify(void *user, const struct postcopy_notification *notification)
{
    Watcher *watcher = user;

    if (notification->event == POSTCOPY_ARMED)
        __atomic_store_n(&watcher->armed, 1, __ATOMIC_RELEASE);
    else if (notification->event == POSTCOPY_RELEASED || notification->event == POSTCOPY_CANCELLED)
        __atomic_store_n(&watcher->armed, 0, __ATOMIC_RELEASE);
    log_line("%s %s", event_name(notification->event), notification->text);
}

/* A guest that a plain migration brought runs by now, and is a source like any other. */
static void check_arrival(Watcher *watcher)
{
    if (!watcher->may_have_arrived || !process_vcpus_have_run(watcher->vcpus, watcher->n_vcpus))
        return;
    if (!__atomic_load_n(&watcher->armed, __ATOMIC_ACQUIRE)) {
        log_line("the guest runs: it has arrived by other means");
        postcopy_running(watcher->pc, SLOW_TICK_MS);
    }
    watcher->may_have_arrived = false;
}

static void check_vcpus(Watcher *watcher)
{
    uint32_t vcpus[VCPUS_MAX];
    size_t n = process_vcpus(vcpus, VCPUS_MAX);

    if (n == 0 || (n == watcher->n_vcpus && !memcmp(vcpus, watcher->vcpus, n * sizeof *vcpus)))
        return;
    memcpy(watcher->vcpus, vcpus, n * sizeof *vcpus);
    watcher->n_vcpus = n;
    log_line("%zu vCPUs", n);
    postcopy_set_vcpus(watcher->pc, vcpus, n);
}

/* Nothing to do for ever, or until the memory changes, is what most QEMUs come to. */
static int next_tick(const Watcher *watcher)
{
    if (watcher->ticks < QUICK_TICKS)
        return TICK_MS;
    if (watcher->ticks < VCPU_TICKS || watcher->may_have_arrived || watcher->pending)
        return SLOW_TICK_MS;
    return -1;
}

/* With the blocks known by now, so that the daemon learns of all at once. */
static int connect_with(Watcher *watcher, struct postcopy_config *config)
{
    struct postcopy_region regions[RAM_MAX];
    RamBlock blocks[RAM_MAX];
    size_t n = ram_take(blocks);
    int error;

    for (size_t i = 0; i < n; i++) {
        regions[i] = as_region(watcher, &blocks[i]);
        log_line("memory at %p, %llu bytes", regions[i].address,
                 (unsigned long long)regions[i].length);
    }
    watcher->shared = n > 0;
    config->regions = regions;
    config->n_regions = n;
    error = postcopy_connect(config, 0, 0, &watcher->pc);
    if (error == -EINVAL && n) {
        /* One of them was unmapped meanwhile, or cannot be served: then they are tried singly. */
        log_line("%s", postcopy_error(NULL));
        config->n_regions = 0;
        error = postcopy_connect(config, 0, 0, &watcher->pc);
        for (size_t i = 0; i < n; i++)
            ram_put_back(&blocks[i]);
        return error;
    }
    for (size_t i = 0; i < n; i++)
        close(blocks[i].fd);
    return error;
}

static bool start(Watcher *watcher)
{
    struct postcopy_config config = {
        .size = sizeof config,
        .socket = getenv("POSTCOPY_SOCKET"),
        .notify = notify,
        .refuse = refuse,
        .user = watcher,
    };
    int error;

    if (!process_options(&watcher->options))
        return false;
    watcher->may_have_arrived = watcher->options.incoming;
    config.role = watcher->options.incoming ? POSTCOPY_DESTINATION : POSTCOPY_SOURCE;
    config.name = watcher->options.name;
    memcpy(config.uuid, watcher->options.uuid, sizeof config.uuid);
    error = connect_with(watcher, &config);
    log_line("%s \"%s\": %s", watcher->options.incoming ? "destination" : "source", config.name,
             error ? postcopy_error(NULL) : "started");
    return error == 0;
}

static void *run(void *unused)
{
    static Watcher watcher; /* libpostcopy's thread uses it until QEMU exits */

    (void)unused;
    while (ram_wait(SETTLE_MS))
        ;
    if (!start(&watcher))
        return NULL;
    add_pending(&watcher);
    for (;; watcher.ticks++) {
        if (ram_wait(next_tick(&watcher)))
            while (ram_wait(SETTLE_MS))
                ;
        add_pending(&watcher);
        check_vcpus(&watcher);
        check_arrival(&watcher);
    }
    return NULL;
}

static void start_once(void)
{
    sigset_t all, before;
    pthread_t thread;

    /* QEMU's signals are for its own threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&thread, NULL, run, NULL) == 0) {
        pthread_setname_np(thread, "postcopy-watch");
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void watcher_start(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, start_once);
}
