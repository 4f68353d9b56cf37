/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/faults.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/qemu/log.h"

void faults_init(Faults *faults, Listen *listen)
{
    memset(faults, 0, sizeof *faults);
    faults->listen = listen;
    relay_init(&faults->relay);
}

/* True if the daemon has read faults since the last look. */
static bool has_read(Faults *faults)
{
    const PageTableHeader *header = faults->listen->plan->table.header;
    bool moved = false;

    for (unsigned i = 0; i < PAGE_TABLE_BUSY; i++) {
        uint64_t reads = __atomic_load_n(&header->reads[i], __ATOMIC_ACQUIRE);

        moved = moved || reads != faults->reads[i];
        faults->reads[i] = reads;
    }
    return moved;
}

/*
 * Looked at without waiting there: the kernel would wake us with every fault that is the daemon's.
 * When the one that has been readable the longest began to be, or 0.  While the daemon reads, what is
 * there now is not what was there before: with many faults there is something at every look.
 */
static uint64_t sample(Faults *faults, uint64_t now)
{
    const Plan *plan = faults->listen->plan;
    uint64_t oldest = 0;

    if (has_read(faults))
        memset(faults->readable_since, 0, sizeof faults->readable_since);
    for (uint32_t i = 0; i < plan->n_segments; i++)
        faults->samples[i] = (struct pollfd){.fd = plan->segments[i].uffd, .events = POLLIN};
    if (poll(faults->samples, plan->n_segments, 0) < 0)
        return 0;
    for (uint32_t i = 0; i < plan->n_segments; i++) {
        uint64_t *since = &faults->readable_since[i];
        if (!(faults->samples[i].revents & POLLIN))
            *since = 0;
        else if (!*since)
            *since = now;
        if (*since && (!oldest || *since < oldest))
            oldest = *since;
    }
    return oldest;
}

static void set_relaying(Faults *faults, uint32_t value)
{
    __atomic_store_n(&faults->listen->plan->table.header->relaying, value, __ATOMIC_SEQ_CST);
}

static void look(Faults *faults, uint64_t now, bool connected, RelayView *view)
{
    const PageTableHeader *header = faults->listen->plan->table.header;

    view->now = now;
    view->connected = connected;
    view->registered_at = __atomic_load_n(&faults->listen->registered_at, __ATOMIC_ACQUIRE);
    view->serving = __atomic_load_n(&header->serving, __ATOMIC_ACQUIRE) == 1;
    for (unsigned i = 0; i < PAGE_TABLE_BUSY; i++)
        view->busy_since[i] = __atomic_load_n(&header->busy_since[i], __ATOMIC_ACQUIRE);
    view->readable_since = faults->relay.relaying ? 0 : sample(faults, now);
}

static void enter(Faults *faults, const RelayView *view)
{
    set_relaying(faults, 1);
    __atomic_store_n(&faults->listen->counts.passed_on, true, __ATOMIC_RELEASE);
    memset(faults->readable_since, 0, sizeof faults->readable_since);
    faults->entered++;
    listen_wake_all(faults->listen); /* before a word of it: they wait */
    log_line("faults go to QEMU from now on: the daemon %s", !view->connected ? "is gone"
                                                             : view->serving  ? "hangs"
                                                                              : "does not serve");
}

void faults_tick(Faults *faults, uint64_t now, bool connected)
{
    RelayView view;

    look(faults, now, connected, &view);
    switch (relay_tick(&faults->relay, &view)) {
    case RELAY_ENTER:
        enter(faults, &view);
        break;
    case RELAY_WAKE:
        listen_wake_all(faults->listen);
        break;
    case RELAY_LEAVE:
        set_relaying(faults, 0);
        log_line("faults go to the daemon again");
        break;
    case RELAY_STAY:
        break;
    }
}

/* True if nothing is left to be sent. */
static bool flush(Faults *faults)
{
    int peer = __atomic_load_n(&faults->listen->peer, __ATOMIC_ACQUIRE);

    while (faults->next < faults->n) {
        const struct uffd_msg *message = &faults->pending[faults->next];
        ssize_t sent = send(peer, message, sizeof *message, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM))
            return false;
        if (sent < 0)
            faults->gone = true; /* nobody reads them any more */
        faults->next++;
    }
    return true;
}

/* Reads a uffd and sends what it had; *count goes up by that.  False if QEMU does not keep up. */
static bool carry(Faults *faults, int uffd, uint64_t *count)
{
    ssize_t got = read(uffd, faults->pending, sizeof faults->pending);

    if (got < (ssize_t)sizeof faults->pending[0])
        return true;
    faults->next = 0;
    faults->n = (size_t)got / sizeof faults->pending[0];
    *count += faults->n;
    for (size_t i = 0; i < faults->n; i++) {
        if (faults->pending[i].event != UFFD_EVENT_PAGEFAULT)
            continue;
        hold_asks(&faults->listen->hold, faults->pending[i].arg.pagefault.address);
        if (!__atomic_load_n(&faults->listen->thread_ids, __ATOMIC_ACQUIRE))
            faults->pending[i].arg.pagefault.feat.ptid = 0;
    }
    return flush(faults);
}

size_t faults_polls(const Faults *faults, struct pollfd polls[FAULTS_POLLS])
{
    const Plan *plan = faults->listen->plan;
    int peer = __atomic_load_n(&faults->listen->peer, __ATOMIC_ACQUIRE);
    bool full = faults->next < faults->n;
    size_t n = 0;

    if (peer < 0)
        return 0;
    polls[n++] = (struct pollfd){.fd = peer, .events = full ? POLLOUT : 0};
    if (full)
        return n;
    if (__atomic_load_n(&faults->listen->initialized, __ATOMIC_ACQUIRE))
        polls[n++] = (struct pollfd){.fd = faults->listen->native, .events = POLLIN};
    for (uint32_t i = 0; faults->relay.relaying && i < plan->n_segments; i++)
        polls[n++] = (struct pollfd){.fd = plan->segments[i].uffd, .events = POLLIN};
    return n;
}

void faults_forward(Faults *faults, const struct pollfd *polls, size_t n)
{
    if (n == 0)
        return;
    if (polls[0].revents & (POLLHUP | POLLERR))
        faults->gone = true;
    if (!flush(faults))
        return;
    for (size_t i = 1; i < n; i++) {
        bool native = polls[i].fd == faults->listen->native;
        if ((polls[i].revents & POLLIN) &&
            !carry(faults, polls[i].fd, native ? &faults->native : &faults->relayed))
            return;
    }
}
