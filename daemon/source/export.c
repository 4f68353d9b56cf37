/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/source/export.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/core/log.h"
#include "daemon/source/export_lease.h"
#include "daemon/source/export_rdma.h"

enum { EXPORTS_MAX = 1024 };

/* All exports that may be found; the list holds no reference, export_close() takes them out. */
static struct {
    pthread_mutex_t lock;
    Export *exports[EXPORTS_MAX];
} registry = {.lock = PTHREAD_MUTEX_INITIALIZER};

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
    export_end_connections(export, SHUT_WR);
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

/* --- channels ------------------------------------------------------------------------------ */

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
