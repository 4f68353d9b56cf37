/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/source/export.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/core/clock.h"
#include "daemon/core/log.h"
#include "daemon/source/export_rdma.h"
#include "daemon/source/forecast.h"

enum {
    EXPORTS_MAX = 1024,
    CONTROL_SILENCE_MS = 15000,
    CONTROL_CLOSE_MS = 2000,
    CONTROL_BUFFER = 256 * 1024, /* of a control connection: more than may be under way at once */
};

/* All exports that may be found; the list holds no reference, export_close() takes them out. */
static struct {
    pthread_mutex_t lock;
    Export *exports[EXPORTS_MAX];
} registry = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Atomic uint32_t sessions;

void export_random(void *ret_bytes, size_t length)
{
    char *at = ret_bytes;

    while (length > 0) {
        ssize_t n = getrandom(at, length, 0);
        if (n < 0 && errno != EINTR)
            abort(); /* a guessable secret would be worse */
        if (n > 0) {
            at += n;
            length -= (size_t)n;
        }
    }
}

bool export_secrets_equal(const uint8_t *a, const uint8_t *b, size_t length)
{
    uint8_t difference = 0;

    for (size_t i = 0; i < length; i++)
        difference |= a[i] ^ b[i];
    return difference == 0;
}

static bool register_export(Export *export)
{
    bool found = false;

    pthread_mutex_lock(&registry.lock);
    for (unsigned i = 0; i < EXPORTS_MAX && !found; i++)
        if (!registry.exports[i]) {
            registry.exports[i] = export;
            found = true;
        }
    pthread_mutex_unlock(&registry.lock);
    return found;
}

static void unregister_export(Export *export)
{
    pthread_mutex_lock(&registry.lock);
    for (unsigned i = 0; i < EXPORTS_MAX; i++)
        if (registry.exports[i] == export)
            registry.exports[i] = NULL;
    pthread_mutex_unlock(&registry.lock);
}

/* token NULL: a new one; seal 0: not sealed. */
static Export *make(const uint8_t uuid[LIMIT_UUID], const char *name, int client_pid,
                    const RegionSet *regions, const uint8_t *token, uint64_t seal,
                    ExportNotify notify, void *owner, int *ret_error)
{
    Export *export = calloc(1, sizeof *export);

    *ret_error = -ENOMEM;
    if (!export)
        return NULL;
    *ret_error = memory_init(&export->memory, regions, client_pid);
    if (*ret_error) {
        free(export);
        return NULL;
    }
    pthread_mutex_init(&export->lock, NULL);
    export_rdma_init(export);
    export->references = 1;
    export->client_pid = client_pid;
    export->notify = notify;
    export->owner = owner;
    export->relay_listener = -1;
    memcpy(export->uuid, uuid, sizeof export->uuid);
    snprintf(export->name, sizeof export->name, "%s", name);
    atomic_store(&export->seal, seal);
    if (token)
        memcpy(export->token, token, sizeof export->token);
    else
        export_random(export->token, sizeof export->token);
    for (unsigned i = 0; i < EXPORT_CHANNELS_MAX; i++)
        export->channels[i].fd = -1;
    if (register_export(export))
        return export;
    *ret_error = -ENOSPC;
    export_unref(export);
    return NULL;
}

Export *export_new(const uint8_t uuid[LIMIT_UUID], const char *name, int client_pid,
                   const RegionSet *regions, ExportNotify notify, void *owner, int *ret_error)
{
    return make(uuid, name, client_pid, regions, NULL, 0, notify, owner, ret_error);
}

Export *export_restore(const uint8_t uuid[LIMIT_UUID], const char *name, int client_pid,
                       const RegionSet *regions, const uint8_t token[LIMIT_TOKEN], uint64_t seal,
                       ExportNotify notify, void *owner, int *ret_error)
{
    return make(uuid, name, client_pid, regions, token, seal, notify, owner, ret_error);
}

Export *export_ref(Export *export)
{
    atomic_fetch_add(&export->references, 1);
    return export;
}

void export_unref(Export *export)
{
    if (!export || atomic_fetch_sub(&export->references, 1) > 1)
        return;
    memory_deinit(&export->memory);
    if (export->relay_listener >= 0)
        close(export->relay_listener);
    export_rdma_deinit(export);
    pthread_mutex_destroy(&export->lock);
    free(export);
}

/*
 * Under the lock: every connection of the lease ends; their threads see it and go.
 * how: SHUT_WR lets the peer read the last orders before it hears of the end.
 */
static void end_connections(Export *export, int how)
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
 * Nobody accepts any more.  Shutting the listener down refuses who comes later, but not who is waiting:
 * a QEMU that had just connected would fill its socket and hang for ever.
 */
static void turn_away(int listener)
{
    int fd;

    shutdown(listener, SHUT_RDWR);
    while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0)
        close(fd);
}

void export_close(Export *export)
{
    unregister_export(export);
    atomic_store(&export->closed, true);
    pthread_mutex_lock(&export->lock);
    end_connections(export, SHUT_WR);
    if (export->relay_listener >= 0)
        turn_away(export->relay_listener);
    pthread_mutex_unlock(&export->lock);
    export_rdma_wait(export);
}

void export_drop_memory(Export *export)
{
    if (atomic_load(&export->references) == 1 && atomic_load(&export->closed))
        memory_deinit(&export->memory);
}

static bool token_matches(const Export *export, const void *token)
{
    return export_secrets_equal(export->token, token, LIMIT_TOKEN);
}

typedef struct SecretKey {
    uint32_t session;
    const uint8_t *secret;
} SecretKey;

static bool secret_matches(Export *export, const void *argument)
{
    const SecretKey *key = argument;
    bool same;

    pthread_mutex_lock(&export->lock);
    same = export->session != 0 && export->session == key->session &&
           export_secrets_equal(export->secret, key->secret, LIMIT_TOKEN);
    pthread_mutex_unlock(&export->lock);
    return same;
}

Export *export_find_by_token(const uint8_t token[LIMIT_TOKEN])
{
    Export *found = NULL;

    pthread_mutex_lock(&registry.lock);
    for (unsigned i = 0; i < EXPORTS_MAX && !found; i++)
        if (registry.exports[i] && token_matches(registry.exports[i], token))
            found = export_ref(registry.exports[i]);
    pthread_mutex_unlock(&registry.lock);
    return found;
}

Export *export_find_by_secret(uint32_t session, const uint8_t secret[LIMIT_TOKEN])
{
    SecretKey key = {.session = session, .secret = secret};
    Export *found = NULL;

    pthread_mutex_lock(&registry.lock);
    for (unsigned i = 0; i < EXPORTS_MAX && !found; i++)
        if (registry.exports[i] && secret_matches(registry.exports[i], &key))
            found = export_ref(registry.exports[i]);
    pthread_mutex_unlock(&registry.lock);
    return found;
}

bool export_is_attended(const uint8_t uuid[LIMIT_UUID])
{
    bool attended = false;

    pthread_mutex_lock(&registry.lock);
    for (unsigned i = 0; i < EXPORTS_MAX && !attended; i++) {
        Export *export = registry.exports[i];

        if (!export || memcmp(export->uuid, uuid, LIMIT_UUID) != 0)
            continue;
        pthread_mutex_lock(&export->lock);
        attended = export->control != NULL;
        pthread_mutex_unlock(&export->lock);
    }
    pthread_mutex_unlock(&registry.lock);
    return attended;
}

/* --- the seal ------------------------------------------------------------------------------ */

uint64_t export_draw_seal(void)
{
    uint64_t seal = 0;

    while (seal == 0)
        export_random(&seal, sizeof seal);
    return seal;
}

void export_seal_as(Export *export, uint64_t seal)
{
    atomic_store_explicit(&export->seal, seal, memory_order_release);
}

uint64_t export_seal(Export *export)
{
    uint64_t seal = export_draw_seal();

    export_seal_as(export, seal);
    return seal;
}

PeerErrorCode export_refuses(const Export *export)
{
    if (atomic_load_explicit(&export->fenced, memory_order_acquire))
        return PEER_ERROR_FENCED;
    return atomic_load_explicit(&export->seal, memory_order_acquire) ? PEER_ERROR_NONE
                                                                     : PEER_ERROR_UNSEALED;
}

/* Under the lock: the first to fence it says why. */
static bool fence(Export *export, const char *reason)
{
    if (atomic_load(&export->fenced))
        return false;
    snprintf(export->reason, sizeof export->reason, "%s", reason);
    atomic_store_explicit(&export->fenced, true, memory_order_release);
    export_rdma_end(export);
    return true;
}

static void fence_and_tell(Export *export, const char *reason, bool failed)
{
    PeerMessage *message;
    bool first;

    pthread_mutex_lock(&export->lock);
    first = fence(export, reason);
    pthread_mutex_unlock(&export->lock);
    if (!first)
        return;
    if (failed)
        log_error("%s: export fenced: %s", export->name, reason);
    else
        log_info("%s: export ended: %s", export->name, reason);
    message = calloc(1, sizeof *message);
    if (message) {
        message->type = PEER_FENCED;
        message->status.code = PEER_ERROR_FENCED;
        snprintf(message->status.text, sizeof message->status.text, "%s", reason);
        export_order(export, message);
        free(message);
    }
    export_rdma_wait(export);
}

void export_fence(Export *export, const char *reason)
{
    fence_and_tell(export, reason, true);
}

void export_retire(Export *export, const char *reason)
{
    fence_and_tell(export, reason, false);
}

/* --- connections --------------------------------------------------------------------------- */

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
    end_connections(export, SHUT_RDWR);
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
        end_connections(export, SHUT_RDWR); /* of one that came meanwhile */
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

ExportChannel *export_enter_channel(Export *export, int fd, uint32_t session, PeerChannelKind kind,
                                    uint32_t index)
{
    ExportChannel *channel = NULL;

    pthread_mutex_lock(&export->lock);
    for (unsigned i = 0; i < EXPORT_CHANNELS_MAX && !channel; i++)
        if (export->channels[i].fd < 0)
            channel = &export->channels[i];
    if (session != export->session || atomic_load(&export->closed))
        channel = NULL;
    if (channel) {
        channel->fd = fd;
        channel->kind = kind;
        channel->index = index;
        atomic_store(&channel->requests, 0);
        atomic_store(&channel->bytes, 0);
    }
    pthread_mutex_unlock(&export->lock);
    return channel;
}

void export_leave_channel(Export *export, ExportChannel *channel)
{
    pthread_mutex_lock(&export->lock);
    channel->fd = -1;
    pthread_mutex_unlock(&export->lock);
}
