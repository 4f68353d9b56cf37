/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/assist.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "client/qemu/clock.h"
#include "client/qemu/faults.h"
#include "client/qemu/listen.h"
#include "client/qemu/log.h"
#include "client/qemu/present.h"
#include "client/qemu/session.h"

enum { TICK_MS = 10, POLLS = FAULTS_POLLS + 2 };

/* What QEMU's threads tell the assist thread. */
static int wake = -1;         /* an eventfd, constant once the thread was started; -1: it was not */
static unsigned opened_count; /* atomic */

typedef struct Assist {
    Session session;
    unsigned opened_seen;
    Listen *listen; /* a plan, and what QEMU made of it; NULL: none */
    Faults faults;
    Present present;
    uint64_t ticked_at;
    bool listened;   /* the daemon was told that QEMU listens */
    bool looked;     /* and what was here already */
    bool vhost_user; /* QEMU has back ends of that kind */
    struct pollfd polls[POLLS];
} Assist;

static void end_listen(Assist *assist)
{
    const Listen *listen = assist->listen;
    const Faults *faults = &assist->faults;

    if (listen->peer >= 0) {
        session_content(&assist->session); /* a daemon that was lost on the way is missed no more */
        log_line("QEMU's post-copy is over: %llu pages placed by QEMU, %llu that were there, "
                 "%llu faults relayed in %u times, %llu of other memory, held for %llu ms",
                 (unsigned long long)listen->counts.placed,
                 (unsigned long long)listen->counts.there, (unsigned long long)faults->relayed,
                 faults->entered, (unsigned long long)faults->native,
                 (unsigned long long)(listen->hold.held_ns / CLOCK_MS));
    }
    listen_free(assist->listen);
    assist->listen = NULL;
}

/* The daemon is gone.  A plan that QEMU took stays: its memory's faults are relayed. */
static void lose(Assist *assist)
{
    session_close(&assist->session);
    if (assist->listen && !listen_withdraw(assist->listen))
        end_listen(assist);
}

static void take_plan(Assist *assist)
{
    /* As long as QEMU has not taken it, a newer one replaces it. */
    bool busy = assist->listen && (__atomic_load_n(&assist->listen->peer, __ATOMIC_ACQUIRE) >= 0 ||
                                   listen_withdraw(assist->listen));
    Plan *plan;

    if (assist->listen && !busy)
        end_listen(assist);
    plan = session_take_plan(&assist->session, busy);
    if (!plan)
        return;
    assist->listen = listen_new(plan, wake);
    if (!assist->listen) {
        plan_free(plan);
        return;
    }
    if (assist->vhost_user)
        hold_never(&assist->listen->hold);
    faults_init(&assist->faults, assist->listen);
    assist->present = (Present){0};
    assist->listened = assist->looked = false;
    log_line("a plan for %zu ranges of memory, %u shards", plan->ranges.n, plan->n_segments);
}

/* What else the daemon says with a plan out there: that it takes it back, if QEMU has not used it yet. */
static bool takes_back(const Assist *assist)
{
    return assist->listen && __atomic_load_n(&assist->listen->peer, __ATOMIC_ACQUIRE) < 0;
}

static void hear(Assist *assist, uint64_t now)
{
    int result;

    while (assist->session.socket >= 0 && (result = session_receive(&assist->session, now)) != 0) {
        if (result == SESSION_PLAN)
            take_plan(assist);
        else if (result < 0 || takes_back(assist))
            lose(assist);
    }
}

/* QEMU opened a userfaultfd since the last look. */
static void look_for_opens(Assist *assist, uint64_t now)
{
    unsigned count = __atomic_load_n(&opened_count, __ATOMIC_ACQUIRE);

    if (count != assist->opened_seen && !assist->listen)
        session_want(&assist->session, now);
    assist->opened_seen = count;
}

/* All is registered: the guest may fault, so the daemon hears of that before anything else. */
static void tell_listening(Assist *assist)
{
    Listen *listen = assist->listen;

    if (assist->session.socket < 0 || !__atomic_load_n(&listen->complete, __ATOMIC_ACQUIRE))
        return;
    assist->listened = true;
    if (!session_listen(&assist->session, listen->plan)) {
        lose(assist);
        return;
    }
    log_line("QEMU listens: %llu pages were here and changed", (unsigned long long)listen->hot);
}

/* What is here already needs no fetching; a page that the daemon asks for meanwhile is its own. */
static bool is_looking(const Assist *assist)
{
    return assist->listen && assist->listened && !assist->looked && assist->session.socket >= 0;
}

static void look_around(Assist *assist)
{
    assist->looked = present_step(&assist->present, assist->listen);
    if (assist->looked)
        log_line("%llu pages are here", (unsigned long long)assist->present.found);
}

static void tell_end(Assist *assist)
{
    if (assist->session.socket < 0)
        return;
    session_end(&assist->session);
    session_close(&assist->session);
    listen_withdraw(assist->listen);
}

static void follow(Assist *assist, uint64_t now)
{
    Listen *listen = assist->listen;
    uint32_t registered = listen_registered(listen);

    if (registered && now - assist->ticked_at >= TICK_MS * CLOCK_MS) {
        faults_tick(&assist->faults, now, assist->session.socket >= 0);
        assist->ticked_at = now;
    }
    if (registered && !assist->listened)
        tell_listening(assist);
    if (!assist->listen)
        return; /* the daemon was gone, and QEMU had not taken the plan */
    if (registered && is_looking(assist))
        look_around(assist);
    if ((assist->listened && !registered) || assist->faults.gone)
        tell_end(assist);
    if (assist->faults.gone)
        end_listen(assist);
}

/* How long to wait at most, in ms. */
static int patience(const Assist *assist, uint64_t now)
{
    uint64_t ask_at = assist->session.ask_at;

    if (is_looking(assist) && listen_registered(assist->listen))
        return 0;
    if (assist->listen && listen_registered(assist->listen))
        return TICK_MS;
    if (!ask_at || assist->listen)
        return -1;
    return ask_at > now ? (int)((ask_at - now) / CLOCK_MS) + 1 : 0;
}

static void wait_for_anything(Assist *assist)
{
    struct pollfd *polls = assist->polls;
    eventfd_t ignored;
    size_t n = 0;

    polls[0] = (struct pollfd){.fd = wake, .events = POLLIN};
    polls[1] = (struct pollfd){.fd = assist->session.socket, .events = POLLIN};
    if (assist->listen)
        n = faults_polls(&assist->faults, polls + 2);
    if (poll(polls, n + 2, patience(assist, clock_ns())) < 0)
        return;
    if (polls[0].revents)
        eventfd_read(wake, &ignored);
    if (assist->listen)
        faults_forward(&assist->faults, polls + 2, n);
    if (polls[1].revents)
        hear(assist, clock_ns());
}

static void *run(void *argument)
{
    Assist *assist = argument;

    for (;;) {
        uint64_t now = clock_ns();

        look_for_opens(assist, now);
        if (!assist->listen && !session_ask(&assist->session, now))
            lose(assist);
        if (assist->listen)
            follow(assist, now);
        wait_for_anything(assist);
    }
    return NULL;
}

static void start(void)
{
    QemuOptions options;
    Assist *assist;
    sigset_t all, before;
    pthread_t thread;

    if (!process_options(&options) || !options.incoming)
        return;
    assist = calloc(1, sizeof *assist);
    wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!assist || wake < 0) {
        free(assist);
        return;
    }
    assist->vhost_user = options.vhost_user;
    session_init(&assist->session, &options);
    /* QEMU's signals are for its own threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&thread, NULL, run, assist) == 0) {
        pthread_setname_np(thread, "postcopy-assist");
        pthread_detach(thread);
    } else {
        free(assist);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void assist_opened(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    __atomic_add_fetch(&opened_count, 1, __ATOMIC_RELEASE);
    pthread_once(&once, start);
    if (wake >= 0)
        eventfd_write(wake, 1);
}
