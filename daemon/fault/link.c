/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/link.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "daemon/core/clock.h"
#include "daemon/core/log.h"
#include "daemon/core/thread.h"
#include "daemon/fault/assist.h"
#include "daemon/fault/import.h"
#include "daemon/fault/link_attach.h"
#include "daemon/fault/link_channels.h"
#include "daemon/fault/link_rdma.h"
#include "daemon/fault/link_relay.h"
#include "daemon/fault/link_report.h"

enum {
    LINK_PAUSE_MIN_MS = 50,
    LINK_PAUSE_MAX_MS = 1000,
    LINK_REPORT_MS = 100,
    LINK_SEAL_MS = 1000,
    LINK_UNKNOWN_MS = 3000, /* a restarted source gets its sealed exports back from its clients */
};

static void signal_fd(int fd)
{
    uint64_t one = 1;

    while (write(fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static void wake(Link *link)
{
    signal_fd(link->wake_fd);
}

void link_channel_down(Link *link, const char *reason)
{
    atomic_store(&link->channel_down, reason);
    wake(link);
}

void link_populated(Link *link)
{
    wake(link);
}

void link_arm(Link *link)
{
    atomic_store(&link->armed, true);
    wake(link);
}

void link_release(Link *link)
{
    atomic_store(&link->released, true);
    wake(link);
}

unsigned link_dead_ms(const Link *link)
{
    return 3 * link->import->config.ping_ms;
}

/* --- taking it down ------------------------------------------------------------------------ */

/*
 * Channels may be joined anew only when their threads have let go of the old connections.  By then no
 * device writes any more on behalf of these (rule 4), and nothing of RDMA survives them.
 */
static void disconnect(Link *link, const char *reason)
{
    Import *import = link->import;
    struct pollfd none;

    assist_set_serving(import, false);
    if (link->control && import_state(import) == CLIENT_STATE_RUNNING)
        import_set_state(import, CLIENT_STATE_PAUSED, reason);
    if (link->control && !link->join_failed_again)
        log_warning("%s: link to %s lost: %s", import->name, import->source, reason);
    snprintf(link->reason, sizeof link->reason, "%s", reason);
    atomic_store(&link->connected, false);
    peer_socket_free(link->control);
    link->control = NULL;
    if (link->joined)
        link_channels_revoke(link);
    while (link->joined && !link_channels_are_idle(link) && !atomic_load(&link->stop))
        poll(&none, 0, 1);
    if (!link->joined || link_channels_are_idle(link))
        link_rdma_down(link);
    link->joined = link->ready_told = false;
    link->seal_asked_ns = 0;
    link->told_release = false;
    link->join_failed_again = false;
    atomic_store(&link->channel_down, NULL);
}

/* A guest that has all its memory needs its source no more: it is not stopped, but said aloud. */
void link_take_fence(Link *link, const char *text)
{
    Import *import = link->import;

    if (!atomic_load(&link->released)) {
        import_halt(import, CLIENT_STATE_FENCED, text);
        return;
    }
    log_error("%s: the source's guest runs, although this one has all its memory: %s", import->name,
              text);
    link->finished = true;
}

/* --- what the source says ------------------------------------------------------------------ */

/* However early a source speaks of its seal: the gate opens once there is somebody to pass it. */
static void open_gate_if_due(Link *link)
{
    if (link->seal != 0 && link->joined)
        import_open_gate(link->import, link->seal);
}

/* 0, or negative errno: the connection is of no use any more. */
int link_take_message(Link *link)
{
    Import *import = link->import;
    PeerMessage *m = link->message;

    switch (m->type) {
    case PEER_SEALED:
        link->seal = m->sealed.seal;
        open_gate_if_due(link);
        return 0;
    case PEER_RUNNING:
        import_running(import);
        return 0;
    case PEER_RELAY:
        if (import->config.assist)
            return -EPROTO;
        link_relay_start(link);
        return 0;
    case PEER_CANCEL:
        if (!import_gate_is_open(import) || import->config.assist)
            import->notify(import->owner, import, IMPORT_CANCELLED,
                           import->config.assist ? "its migration is QEMU's alone, says the source"
                                                 : "the source took it back");
        return 0;
    case PEER_FENCED:
        link_take_fence(link, m->status.text);
        return 0;
    case PEER_RELEASED:
        link->finished = atomic_load(&link->released);
        return link->finished ? 0 : -EPROTO;
    case PEER_PING:
        m->type = PEER_PONG;
        return peer_socket_send(link->control, m);
    case PEER_PONG:
        return 0;
    default:
        return -EPROTO;
    }
}

static int keep_up(Link *link)
{
    uint64_t now = clock_ns();
    int error = 0;

    if (now - link->heard_ns > UINT64_C(1000000) * link_dead_ms(link))
        return -ETIMEDOUT;
    if (now - link->pinged_ns > UINT64_C(1000000) * link->import->config.ping_ms) {
        link->pinged_ns = now;
        error = link_send(link, PEER_PING);
    }
    if (!error && now - link->reported_ns > UINT64_C(1000000) * LINK_REPORT_MS)
        error = link_report(link);
    if (!error && atomic_load(&link->released) && !link->told_release) {
        import_set_state(link->import, CLIENT_STATE_RELEASED, "");
        error = link_report(link);
        if (!error)
            error = link_send(link, PEER_RELEASED);
        link->told_release = !error;
    }
    return error;
}

/* Waits for the source, a wake-up or the time. 1: the source spoke. */
static int wait_for_something(Link *link, int timeout_ms)
{
    struct pollfd fds[2] = {
        {.fd = link->wake_fd, .events = POLLIN},
        {.fd = link->control ? link->control->fd : -1, .events = POLLIN},
    };
    uint64_t count;

    if (poll(fds, 2, timeout_ms) < 0)
        return 0;
    if (fds[0].revents && read(link->wake_fd, &count, sizeof count) < 0)
        return 0;
    return fds[1].revents ? 1 : 0;
}

/*
 * Before the gate a source that lost its destination undoes the migration, and that destination
 * hears of it only by not being known any more.  After the release it means that the source has
 * heard of it, and only its answer was lost.
 */
static void consider_unknown(Link *link, bool unknown)
{
    Import *import = link->import;
    bool released = atomic_load(&link->released);
    uint64_t now = clock_ns();

    /* Nothing of it is kept anywhere: it never comes back. */
    if (unknown && import->config.assist && link->attached_once) {
        link->finished = released;
        if (!released)
            import->notify(import->owner, import, IMPORT_CANCELLED,
                           "the source knows no more of it");
        return;
    }
    if (!unknown || (import_gate_is_open(import) && !released))
        link->unknown_ns = 0;
    else if (link->unknown_ns == 0)
        link->unknown_ns = now;
    else if (now - link->unknown_ns <= UINT64_C(1000000) * LINK_UNKNOWN_MS)
        return;
    else if (released)
        link->finished = true;
    else
        import->notify(import->owner, import, IMPORT_CANCELLED, "the source knows no more of it");
}

/* --- building it up ------------------------------------------------------------------------ */

static void attach_failed(Link *link, int error, const char *text)
{
    Import *import = link->import;

    consider_unknown(link, error == -ENOKEY);
    if (!link->attached_once && !import->adopted)
        import->notify(import->owner, import, IMPORT_ATTACH_FAILED, text);
    snprintf(link->reason, sizeof link->reason, "%s", text);
    if (import_gate_is_open(import) && !import_is_halted(import) &&
        import_state(import) != CLIENT_STATE_COMPLETE && !atomic_load(&link->released))
        import_set_state(import, CLIENT_STATE_PAUSED, text);
    wait_for_something(link, (int)link->pause_ms);
    link->pause_ms *= 2;
    if (link->pause_ms > LINK_PAUSE_MAX_MS)
        link->pause_ms = LINK_PAUSE_MAX_MS;
}

static void build_up(Link *link)
{
    Import *import = link->import;
    char text[LIMIT_TEXT + 1] = "";
    unsigned pause_ms = link_rdma_pause_ms(link);
    int error;

    if (pause_ms > 0)
        wait_for_something(link, (int)pause_ms);
    if (atomic_load(&link->stop))
        return;
    error = link_attach(link, text);
    if (error) {
        attach_failed(link, error, text);
        return;
    }
    link->unknown_ns = 0;
    if (link->attached_once)
        atomic_fetch_add(&link->reconnects, 1);
    else
        import->notify(import->owner, import, IMPORT_ATTACHED, "");
    link->attached_once = true;
    link->pause_ms = LINK_PAUSE_MIN_MS;
}

/* Once armed and sealed the data channels are joined; a paused import then runs again. */
static int join_if_due(Link *link)
{
    Import *import = link->import;
    char text[LIMIT_TEXT + 1] = "";
    int error;

    if (link->joined || !atomic_load(&link->armed) || atomic_load(&link->released))
        return 0;
    error = link_channels_join(link, text);
    if (error) {
        link->join_failed_again = strcmp(link->join_failed, text) == 0;
        if (!link->join_failed_again)
            log_warning("%s: %s", import->name, text);
        memcpy(link->join_failed, text, sizeof link->join_failed);
        return error;
    }
    link->join_failed[0] = '\0';
    link->join_failed_again = false;
    link->joined = true;
    open_gate_if_due(link);
    if (import_state(import) == CLIENT_STATE_PAUSED) {
        import_set_state(import, CLIENT_STATE_RUNNING, "");
        log_info("%s: link to %s is back", import->name, import->source);
    }
    return 0;
}

/* A guest that moves before the mirror is mapped, and a part of it pinned, would wait for that, page by page. */
static void tell_ready_if_due(Link *link)
{
    Import *import = link->import;

    if (!link->joined || link->ready_told)
        return;
    if (!import_gate_is_open(import) &&
        (!atomic_load(&import->mirror.populated) ||
         (link_rdma_is_on(link) && !atomic_load(&import->landing.prepared))))
        return;
    link->ready_told = true;
    import->notify(import->owner, import, IMPORT_READY, "");
}

/*
 * Its QEMU listens, so the guest has stopped at the source, whose daemon finds that out by itself.  It does
 * not look for ever, and may find its QEMU busy: so it is asked again.
 */
static int ask_seal_if_due(Link *link)
{
    Import *import = link->import;
    uint64_t now = clock_ns();

    if (!import->config.assist || !link->joined || import_gate_is_open(import) ||
        atomic_load(&link->released) ||
        (link->seal_asked_ns != 0 && now - link->seal_asked_ns < UINT64_C(1000000) * LINK_SEAL_MS))
        return 0;
    link->seal_asked_ns = now;
    return link_send(link, PEER_SEAL);
}

static void tell_serving(Link *link)
{
    Import *import = link->import;

    assist_set_serving(import, link->joined && import_gate_is_open(import) &&
                                   !atomic_load(&link->released));
}

/* --- the thread ---------------------------------------------------------------------------- */

static void serve(Link *link)
{
    int error = join_if_due(link);
    const char *down;
    bool spoke;

    if (!error)
        error = ask_seal_if_due(link);
    if (!error) {
        tell_serving(link); /* before the wait: a link that is back serves at once */
        tell_ready_if_due(link);
    }
    spoke = !error && wait_for_something(link, LINK_REPORT_MS / 2) == 1;

    if (spoke) {
        error = peer_socket_receive(link->control, link->message, (int)link_dead_ms(link));
        if (!error) {
            link->heard_ns = clock_ns();
            error = link_take_message(link);
        }
    }
    if (!error)
        error = keep_up(link);
    link_rdma_goes_on(link);
    if (error)
        disconnect(link, error == -ETIMEDOUT ? "the source's daemon does not answer"
                                             : strerrordesc_np(-error));
    else if (!atomic_load(&link->released) && (down = atomic_load(&link->channel_down)))
        disconnect(link, down);
    else
        tell_serving(link);
}

static void *run(void *argument)
{
    Link *link = argument;

    prctl(PR_SET_NAME, "link");
    while (!atomic_load(&link->stop) && !link->finished) {
        if (link->control)
            serve(link);
        else
            build_up(link);
    }
    if (link->finished)
        link->import->notify(link->import->owner, link->import, IMPORT_FINISHED, "");
    return NULL;
}

int link_init(Link *link, Import *import)
{
    *link = (Link){.import = import, .pause_ms = LINK_PAUSE_MIN_MS};
    link_rdma_init(link);
    link->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    link->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    link->message = calloc(1, sizeof *link->message);
    return link->wake_fd < 0 || link->stop_fd < 0 || !link->message ? -ENOMEM : 0;
}

int link_start(Link *link)
{
    int error = -pthread_create(&link->thread, NULL, run, link);

    link->started = !error;
    return error;
}

void link_stop(Link *link)
{
    if (link->stop_fd >= 0)
        signal_fd(link->stop_fd);
    if (link->started) {
        atomic_store(&link->stop, true);
        wake(link);
        thread_join(link->thread);
        link->started = false;
    }
    link_relay_stop(link); /* after the thread that may start one */
}

void link_deinit(Link *link)
{
    peer_socket_free(link->control);
    link->control = NULL;
    link_rdma_deinit(link);
    if (link->wake_fd >= 0)
        close(link->wake_fd);
    if (link->stop_fd >= 0)
        close(link->stop_fd);
    link->wake_fd = link->stop_fd = -1;
    free(link->message);
    link->message = NULL;
}
