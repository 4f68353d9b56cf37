/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/assist_source.h"

#include <errno.h>
#include <string.h>

#include "daemon/qemu/sockets.h"
#include "daemon/transport/address.h"
#include "daemon/transport/peer_socket.h"

enum { ASK_DEAD_MS = 15000, ASK_ANSWER_MS = 10000 };

typedef struct Job {
    AssistSource found; /* first: it is what the control thread gets, and frees */
    ControlFunction done;
    PortSet others; /* at which its process listens for something else */
} Job;

static void fail(AssistSource *found, int error, const char *text)
{
    found->error = error;
    g_strlcpy(found->text, text, sizeof found->text);
}

/* Our end of QEMU's migration connection, and the host at its other end. */
static gboolean find_connection(AssistSource *found, const PortSet *others,
                                char own_end[SOCKETS_TEXT], char host[SOCKETS_TEXT])
{
    ProcessSocket socket;
    int n = sockets_find_incoming(found->pid, others, &socket);

    if (n == 0)
        fail(found, -EAGAIN,
             "no migration has come to this process over TCP yet: ask again when it has");
    else if (n == -ENOTUNIQ)
        fail(found, -EAGAIN,
             "this process has connections from several hosts: which of them is its source cannot "
             "be told");
    else if (n < 0) {
        found->error = n;
        g_snprintf(found->text, sizeof found->text,
                   "cannot look for the migration of process %d: %s", found->pid, strerror(-n));
    }
    if (n != 1)
        return FALSE;
    socket_end_format(&socket.local, own_end);
    socket_end_format_host(&socket.remote, host);
    return TRUE;
}

/* Where that host's daemon listens, unless the configuration knows better. */
static gboolean choose_address(AssistSource *found, const char *host, char *ret_address)
{
    const Settings *settings = found->control->settings;
    g_autofree char *port = g_strdup_printf("%u", settings->source_port);

    if (settings->source)
        g_strlcpy(ret_address, settings->source, LIMIT_ADDRESS + 1);
    else if (address_format(host, port, ret_address)) {
        fail(found, -EINVAL, "the source's address is too long");
        return FALSE;
    }
    return TRUE;
}

/* The import looks no name up: it takes the address that this connection reached. */
static gboolean note_source(AssistSource *found, const PeerSocket *peer, const char *address)
{
    Address parsed;
    char host[LIMIT_ADDRESS + 1];
    int error = address_parse(address, &parsed);

    if (!error)
        error = address_peer_host(peer->fd, host, sizeof host);
    if (!error)
        error = address_format(host, parsed.port, found->source);
    if (error)
        fail(found, error, "the source's address is unusable");
    return error == 0;
}

static int ask(AssistSource *found, PeerSocket *peer, const char *own_end, PeerMessage *message)
{
    int error;

    memset(message, 0, sizeof *message);
    message->type = PEER_ASK;
    memcpy(message->ask.uuid, found->uuid, sizeof message->ask.uuid);
    g_strlcpy(message->ask.name, found->name, sizeof message->ask.name);
    memcpy(message->ask.token, found->token, sizeof message->ask.token);
    g_strlcpy(message->ask.connection, own_end, sizeof message->ask.connection);
    error = peer_socket_send(peer, message);
    if (!error)
        error = peer_socket_receive(peer, message, ASK_ANSWER_MS);
    return error;
}

static void take_answer(AssistSource *found, const PeerMessage *message, const char *address,
                        int error)
{
    if (!error && message->type != PEER_ASKED && message->type != PEER_BYE)
        error = -EPROTO;
    if (error) {
        found->error = error;
        g_snprintf(found->text, sizeof found->text, "daemon at %.200s: %s", address,
                   strerror(-error));
        return;
    }
    if (message->type == PEER_ASKED && message->asked.code == PEER_ERROR_NONE) {
        memcpy(found->token, message->asked.token, sizeof found->token);
        found->ahead = (message->asked.flags & PEER_ASKED_AHEAD) != 0;
        return;
    }
    found->error = -ECONNREFUSED;
    g_snprintf(found->text, sizeof found->text, "source: %.1000s",
               message->type == PEER_BYE ? message->status.text : message->asked.text);
}

static void find(AssistSource *found, const PortSet *others)
{
    g_autofree PeerMessage *message = g_new0(PeerMessage, 1);
    char own_end[SOCKETS_TEXT], host[SOCKETS_TEXT];
    char address[LIMIT_ADDRESS + 1];
    PeerSocket *peer;

    if (!find_connection(found, others, own_end, host) || !choose_address(found, host, address))
        return;
    /* The VM's token lies where users of this host may read it, so it alone proves too little. */
    peer =
        peer_socket_connect_reserved(address, ASK_DEAD_MS, -1, message, &found->error, found->text);
    if (!peer)
        return;
    if (note_source(found, peer, address))
        take_answer(found, message, address, ask(found, peer, own_end, message));
    peer_socket_free(peer);
}

static gpointer run(gpointer argument)
{
    Job *job = argument;

    find(&job->found, &job->others);
    control_post(job->found.control, job->done, job);
    return NULL;
}

gboolean assist_source_find(const Expected *expected, ControlFunction done)
{
    Job *job = g_new0(Job, 1);
    GThread *thread;

    job->done = done;
    job->found.control = expected->control;
    job->found.expected = expected->id;
    job->found.pid = expected->pid;
    memcpy(job->found.uuid, expected->uuid, sizeof job->found.uuid);
    g_strlcpy(job->found.name, expected->name, sizeof job->found.name);
    memcpy(job->found.token, expected->token, sizeof job->found.token);
    for (guint32 i = 0; i < expected->n_ports; i++)
        port_set_add(&job->others, expected->ports[i]);
    thread = g_thread_try_new("ask", run, job, NULL);
    if (!thread) {
        g_free(job);
        return FALSE;
    }
    g_thread_unref(thread);
    return TRUE;
}
