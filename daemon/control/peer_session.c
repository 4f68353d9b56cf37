/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/peer_session.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "daemon/control/arrival.h"
#include "daemon/control/awaited.h"
#include "daemon/control/departure_relay.h"
#include "daemon/control/peer_ask.h"
#include "daemon/control/transport_choice.h"
#include "daemon/core/log.h"
#include "daemon/source/server.h"
#include "daemon/transport/address.h"

enum {
    PEER_DEAD_MS = 15000,
    AWAIT_LOOK_MS = 200,
    BULK_UNSENT = 512 * 1024, /* enough to keep a connection busy while its thread reads memory */
};

typedef struct PeerSession {
    Control *control;
    PeerSocket *peer;
    PeerMessage *message;
    gboolean proven; /* it belongs to a migration (peer_crowd.h) */
    char host[LIMIT_ADDRESS + 1];
} PeerSession;

static void refuse(PeerSession *session, PeerErrorCode code, const char *text)
{
    log_warning("daemon at %s refused: %s", session->host, text);
    peer_socket_refuse(session->peer, session->message, code, text);
}

static void prove(PeerSession *session)
{
    session->proven = peer_crowd_prove(&session->control->peers, session->host);
}

/* It showed what only a destination knows.  FALSE: it was told that there is no room. */
static gboolean let_in(PeerSession *session)
{
    prove(session);
    if (!session->proven)
        peer_socket_refuse(session->peer, session->message, PEER_ERROR_BUSY,
                           "too many connections to this daemon");
    return session->proven;
}

/* The VM may come much later: meanwhile the source may have given up. */
static void withdraw_if_gone(PeerSession *session, gboolean *ret_gone)
{
    char byte;
    ssize_t n = recv(session->peer->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

    if (*ret_gone || n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
        return;
    *ret_gone = TRUE;
    control_post(session->control, awaited_withdraw,
                 g_memdup2(session->message->invite.token, LIMIT_TOKEN));
}

static void tell_awaited(PeerSession *session)
{
    g_autofree PeerMessage *message = g_new0(PeerMessage, 1);

    message->type = PEER_AWAITED;
    peer_socket_send(session->peer, message); /* a source that is gone is noticed by its end */
}

/* Before that, the invitation is the control thread's to look at. */
static void await_answer(PeerSession *session, Invitation *invitation)
{
    gboolean told = FALSE, proven = FALSE, gone = FALSE;
    struct timespec until;

    while (!invitation->answered) {
        gboolean tell = invitation->awaited && !told;

        if (invitation->accepted && !proven)
            prove(session); /* arming takes a while; without room it is no worse off than before */
        proven = invitation->accepted;
        told = invitation->awaited;
        if (tell) {
            pthread_mutex_unlock(&invitation->lock);
            tell_awaited(session);
            pthread_mutex_lock(&invitation->lock);
            continue;
        }
        if (told)
            withdraw_if_gone(session, &gone);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += AWAIT_LOOK_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_cond_timedwait(&invitation->changed, &invitation->lock, &until);
    }
}

static void on_invite(PeerSession *session)
{
    Invitation invitation = {.message = session->message, .peer_host = session->host};
    PeerMessage *reply;

    pthread_mutex_init(&invitation.lock, NULL);
    pthread_cond_init(&invitation.changed, NULL);
    control_post(session->control, arrival_invite, &invitation);
    pthread_mutex_lock(&invitation.lock);
    await_answer(session, &invitation);
    pthread_mutex_unlock(&invitation.lock);
    pthread_cond_destroy(&invitation.changed);
    pthread_mutex_destroy(&invitation.lock);

    reply = session->message;
    memset(reply, 0, sizeof *reply);
    reply->type = PEER_INVITED;
    reply->status.code = invitation.code;
    g_strlcpy(reply->status.text, invitation.text, sizeof reply->status.text);
    g_strlcpy(reply->status.incoming, invitation.incoming, sizeof reply->status.incoming);
    peer_socket_send(session->peer, reply);
}

static void on_attach(PeerSession *session)
{
    Export *export = export_find_by_token(session->message->attach.token);

    if (export &&
        (memcmp(export->uuid, session->message->attach.uuid, LIMIT_UUID) != 0 ||
         (!export->asked_for && strcmp(export->name, session->message->attach.name) != 0))) {
        export_unref(export);
        export = NULL;
    }
    if (!export) {
        refuse(session, PEER_ERROR_TOKEN, "no VM is exported for that token");
        return;
    }
    if (!let_in(session)) {
        export_unref(export);
        return;
    }
    pthread_mutex_lock(&export->lock);
    g_strlcpy(export->destination, session->host, sizeof export->destination);
    pthread_mutex_unlock(&export->lock);
    export_serve_control(export, session->peer, session->message);
    session->peer = NULL;
    export_unref(export);
}

static void on_ask(PeerSession *session)
{
    g_autofree PeerMessage *asked = g_new0(PeerMessage, 1);
    Guest *guest;

    /* libvirt shows a domain's metadata, and so the token, to all users of both hosts. */
    if (!address_peer_is_reserved(session->peer->fd)) {
        refuse(session, PEER_ERROR_REFUSED,
               "a VM may be asked for from a port below 1024 only: does that daemon run as root?");
        return;
    }
    guest = peer_ask_open(session->control, session->message, asked);
    if (guest && !let_in(session)) {
        guest_close(guest);
        return;
    }
    if (guest)
        peer_ask_serve(session->control, guest, session->host, session->message, asked);
    if (!(session->peer->features & PEER_FEATURE_AHEAD))
        asked->asked.flags = 0;
    if (asked->asked.code != PEER_ERROR_NONE)
        log_warning("daemon at %s asked for %s: %s", session->host, session->message->ask.name,
                    asked->asked.text);
    peer_socket_send(session->peer, asked);
}

static void make_blocking(int fd)
{
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
}

static void serve_channel(PeerSession *session, Export *export, ExportChannel *channel,
                          uint32_t number, uint32_t generation)
{
    char refusal[LIMIT_TEXT + 1];
    int fd = session->peer->fd;
    ServerLink link = {
        .fd = fd,
        .session = number,
        .generation = generation,
        .features = session->peer->features,
        .budget = &session->control->rdma_budget,
        .rdma_refusal =
            transport_lends(session->control->settings, session->host, refusal) ? NULL : refusal,
    };

    if (channel->kind == PEER_CHANNEL_RELAY) {
        export->notify(export->owner, export, EXPORT_RELAYED);
        departure_relay_run(export, fd);
        return;
    }
    make_blocking(fd);
    address_prioritise(fd, channel->kind == PEER_CHANNEL_URGENT);
    if (channel->kind == PEER_CHANNEL_BULK)
        address_bound_unsent(fd, BULK_UNSENT);
    server_run(export, channel, &link);
}

static void on_join(PeerSession *session)
{
    PeerMessage *m = session->message;
    uint32_t number = m->session, generation = m->generation, index = m->join.index;
    PeerChannelKind kind = m->join.kind;
    Export *export = export_find_by_secret(number, m->join.secret);
    ExportChannel *channel = NULL;

    if (!export) {
        refuse(session, PEER_ERROR_TOKEN, "no session has that secret");
        return;
    }
    if (!let_in(session)) {
        export_unref(export);
        return;
    }
    if (kind != PEER_CHANNEL_CONTROL)
        channel = export_enter_channel(export, session->peer->fd, number, kind, index);
    if (!channel) {
        refuse(session, PEER_ERROR_BUSY, "too many channels");
    } else {
        memset(m, 0, sizeof *m);
        m->type = PEER_JOINED;
        m->session = number;
        if (peer_socket_send(session->peer, m) == 0)
            serve_channel(session, export, channel, number, generation);
        export_leave_channel(export, channel);
    }
    export_unref(export);
}

static void serve(PeerSession *session)
{
    char text[LIMIT_TEXT + 1] = "";
    int error = peer_socket_welcome(session->peer, session->message, text);

    if (error && error != -ECONNRESET) {
        refuse(session, error == -EPROTONOSUPPORT ? PEER_ERROR_VERSION : PEER_ERROR_PROTOCOL,
               text[0] ? text : "it does not speak postcopyd's protocol");
        return;
    }
    if (!error)
        error = peer_socket_receive(session->peer, session->message, PEER_HANDSHAKE_MS);
    if (error == -EPROTO)
        refuse(session, PEER_ERROR_PROTOCOL, "it sent a malformed frame");
    if (error)
        return;
    switch (session->message->type) {
    case PEER_INVITE:
        on_invite(session);
        break;
    case PEER_ASK:
        on_ask(session);
        break;
    case PEER_ATTACH:
        on_attach(session);
        break;
    case PEER_JOIN:
        on_join(session);
        break;
    default:
        refuse(session, PEER_ERROR_PROTOCOL, "it sent a frame out of turn");
    }
}

static void session_free(PeerSession *session)
{
    peer_socket_free(session->peer);
    peer_crowd_leave(&session->control->peers, session->host, session->proven);
    g_free(session->message);
    g_free(session);
}

static void *run(void *argument)
{
    PeerSession *session = argument;

    prctl(PR_SET_NAME, "peer");
    serve(session);
    session_free(session);
    return NULL;
}

/* Takes fd. NULL: there is no room for it, or no memory. */
static PeerSession *session_new(Control *control, int fd)
{
    PeerSession *session = g_new0(PeerSession, 1);

    session->control = control;
    if (address_peer_host(fd, session->host, sizeof session->host))
        g_strlcpy(session->host, "unknown", sizeof session->host);
    if (!peer_crowd_enter(&control->peers, session->host)) {
        close(fd);
        g_free(session);
        return NULL;
    }
    session->message = g_new0(PeerMessage, 1);
    address_tune(fd, PEER_DEAD_MS);
    session->peer = peer_socket_new(fd);
    if (session->peer)
        return session;
    session_free(session);
    return NULL;
}

void peer_session_start(Control *control, int fd)
{
    PeerSession *session = session_new(control, fd);
    pthread_attr_t attributes;
    pthread_t thread;

    if (!session)
        return;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&thread, &attributes, run, session))
        session_free(session);
    pthread_attr_destroy(&attributes);
}
