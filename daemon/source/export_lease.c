/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An export's lease: who holds it, and what that destination says and hears over its control connection.
 * The connection's own thread serves it; orders, and the end of all connections, come from any thread.
 */
#include "daemon/source/export_lease.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "daemon/core/clock.h"
#include "daemon/core/log.h"
#include "daemon/source/export_rdma.h"
#include "daemon/source/forecast.h"

enum {
    CONTROL_SILENCE_MS = 15000,
    CONTROL_CLOSE_MS = 2000,
    CONTROL_BUFFER = 256 * 1024, /* of a control connection: more than may be under way at once */
};

static _Atomic uint32_t sessions;

void export_end_connections(Export *export, int how)
{
    export_rdma_end(export);
    if (export->control)
        shutdown(export->control->fd, how);
    export->control = NULL;
    for (unsigned i = 0; i < EXPORT_CHANNELS_MAX; i++)
        if (export->channels[i].fd >= 0)
            shutdown(export->channels[i].fd, SHUT_RDWR);
    atomic_store(&export->relay.stop, true);
}

/*
 * Under the lock: its destination is gone, as far as anybody can tell, and comes back with a new lease if at all.
 * A data connection says nothing for as long as nothing is asked, so nobody would ever notice that its other end
 * has vanished, and what is pinned for it would stay so.  A relay is QEMU's, and ends with its stream.
 */
static void lose_destination(Export *export)
{
    export_rdma_end(export);
    export->control = NULL;
    export->session = 0;
    for (unsigned i = 0; i < EXPORT_CHANNELS_MAX; i++)
        if (export->channels[i].fd >= 0 && export->channels[i].kind != PEER_CHANNEL_RELAY)
            shutdown(export->channels[i].fd, SHUT_RDWR);
}

/*
 * Under the lock, which orders what is sent, and therefore without ever waiting: what does not fit
 * into the connection's buffer at once was not read for a long time, and the connection ends.
 */
static int send_control(Export *export, PeerMessage *message)
{
    int error = -ENOTCONN;

    message->session = export->session;
    if (export->control)
        error = peer_socket_send(export->control, message);
    if (error && export->control)
        shutdown(export->control->fd, SHUT_RDWR);
    return error;
}

int export_order(Export *export, PeerMessage *message)
{
    int error;

    pthread_mutex_lock(&export->lock);
    error = send_control(export, message);
    pthread_mutex_unlock(&export->lock);
    return error;
}

/* The same from a connection that may hold the lease no more. */
static int answer(Export *export, const PeerSocket *peer, PeerMessage *message)
{
    int error = -ECANCELED;

    pthread_mutex_lock(&export->lock);
    if (export->control == peer)
        error = send_control(export, message);
    pthread_mutex_unlock(&export->lock);
    return error;
}

/* Under the lock. */
static void describe_lease(Export *export, PeerMessage *m)
{
    m->type = PEER_ATTACHED;
    m->session = export->session;
    m->attached.seal = atomic_load(&export->seal);
    memcpy(m->attached.secret, export->secret, sizeof m->attached.secret);
    if (atomic_load(&export->fenced)) {
        m->attached.code = PEER_ERROR_FENCED;
        memcpy(m->attached.text, export->reason, sizeof m->attached.text);
    }
}

/* Whose lease it was reads no more before another one hears that it is its own. */
static void end_lease_before(Export *export)
{
    pthread_mutex_lock(&export->lock);
    export_end_connections(export, SHUT_RDWR);
    pthread_mutex_unlock(&export->lock);
    export_rdma_wait(export);
}

/* False: the export has ended meanwhile. */
static bool take_lease(Export *export, PeerSocket *peer, PeerMessage *m)
{
    int size = CONTROL_BUFFER;
    bool open;

    setsockopt(peer->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    peer->timeout_ms = 0;
    memset(m, 0, sizeof *m);
    region_set_describe(&export->memory.regions, &m->attached.regions);
    end_lease_before(export);
    pthread_mutex_lock(&export->lock);
    open = !atomic_load(&export->closed);
    if (open) {
        export_end_connections(export, SHUT_RDWR); /* of one that came meanwhile */
        atomic_store(&export->relay.stop, false);
        export->session = atomic_fetch_add(&sessions, 1) + 1;
        export_random(export->secret, sizeof export->secret);
        export->control = peer;
        describe_lease(export, m);
        send_control(export, m); /* no order may overtake it */
    }
    pthread_mutex_unlock(&export->lock);
    return open;
}

/* True: the lease was still this connection's. */
static bool drop_lease(Export *export, const PeerSocket *peer)
{
    bool held;

    pthread_mutex_lock(&export->lock);
    held = export->control == peer;
    if (held)
        lose_destination(export);
    pthread_mutex_unlock(&export->lock);
    return held;
}

static bool holds_lease(Export *export, const PeerSocket *peer)
{
    bool held;

    pthread_mutex_lock(&export->lock);
    held = export->control == peer;
    pthread_mutex_unlock(&export->lock);
    return held;
}

static void keep_progress(Export *export, const PeerMessage *m)
{
    pthread_mutex_lock(&export->lock);
    export->progress = (ExportProgress){
        .known = true,
        .state = m->progress.state,
        .populated_bytes = m->progress.populated_bytes,
        .present_bytes = m->progress.present_bytes,
        .missing_at_running = m->progress.missing_at_running,
        .faults = m->progress.faults,
        .received_bytes = m->progress.received_bytes,
        .fault_p50_ns = m->progress.fault_p50_ns,
        .fault_p99_ns = m->progress.fault_p99_ns,
    };
    memcpy(export->progress.text, m->progress.text, sizeof export->progress.text);
    pthread_mutex_unlock(&export->lock);
}

/*
 * Nobody has everything of a guest that may not be read.  Told once, however often it is said: the
 * answer goes to whoever holds the lease by then, so one that came back and says it again hears it too.
 */
static int take_release(Export *export)
{
    if (export_refuses(export) != PEER_ERROR_NONE)
        return -EPROTO;
    if (!atomic_exchange(&export->released, true))
        export->notify(export->owner, export, EXPORT_RELEASED);
    return 0;
}

/* Nobody asks twice before the first one was looked at: what is told to the owner is bounded. */
static void take_seal(Export *export)
{
    if (export_refuses(export) == PEER_ERROR_UNSEALED &&
        !atomic_exchange(&export->seal_wanted, true))
        export->notify(export->owner, export, EXPORT_SEAL_WANTED);
}

static int serve_message(Export *export, const PeerSocket *peer, PeerMessage *m)
{
    if (!holds_lease(export, peer))
        return -ECANCELED;
    switch (m->type) {
    case PEER_PING:
        m->type = PEER_PONG;
        return answer(export, peer, m);
    case PEER_FORECAST_REQUEST:
        forecast_make(&export->memory, m);
        return answer(export, peer, m);
    case PEER_PROGRESS:
        keep_progress(export, m);
        return 0;
    case PEER_RELEASED:
        return take_release(export);
    case PEER_SEAL:
        take_seal(export);
        return 0;
    default:
        return -EPROTO;
    }
}

/*
 * A connection that is closed with something unread is reset, and a reset may overtake the last order:
 * the peer fails to send before it reads.  So it is left to the peer to close, for a while.
 */
static void wait_for_close(PeerSocket *peer, PeerMessage *scratch)
{
    uint64_t end = clock_ns() + UINT64_C(1000000) * CONTROL_CLOSE_MS;
    int error = 0;

    while (!error && clock_ns() < end)
        error = peer_socket_receive(peer, scratch, CONTROL_CLOSE_MS);
}

void export_serve_control(Export *export, PeerSocket *peer, PeerMessage *message)
{
    int error = 0;

    if (!take_lease(export, peer, message)) {
        peer_socket_free(peer);
        return;
    }
    export->notify(export->owner, export, EXPORT_LEASED);
    while (!error && !atomic_load(&export->closed)) {
        error = peer_socket_receive(peer, message, CONTROL_SILENCE_MS);
        if (!error)
            error = serve_message(export, peer, message);
    }
    /* One that another destination's connection took the place of was not lost. */
    if (drop_lease(export, peer) && !atomic_load(&export->closed) &&
        !atomic_load(&export->released)) {
        log_warning("%s: destination lost: %s", export->name, strerror(-error));
        export->notify(export->owner, export, EXPORT_LOST);
    }
    if (atomic_load(&export->closed) && error != -ECONNRESET)
        wait_for_close(peer, message);
    peer_socket_free(peer);
}
