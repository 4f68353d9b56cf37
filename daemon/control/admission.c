/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/admission.h"

#include <errno.h>
#include <unistd.h>

#include "daemon/core/log.h"

enum { REFUSALS_MAX = 1024 };

static guint connections_of(const Control *control, uid_t uid)
{
    guint n = 0;

    for (guint i = 0; i < control->connections->len; i++) {
        const Connection *other = control->connections->pdata[i];
        n += other->peer.uid == uid;
    }
    return n;
}

/* Operators always get in: somebody has to see who all these are. */
static gboolean is_crowded(const Control *control, uid_t uid)
{
    if (uid == 0 || uid == geteuid())
        return FALSE;
    return control->connections->len >= control->settings->max_clients ||
           connections_of(control, uid) >= control->settings->max_clients_per_user;
}

static void turn_away(Control *control, int fd, const struct ucred *peer)
{
    ClientMessage *reply = control->reply;

    if (log_limit_allows(&control->crowd_limit))
        log_warning("client pid %d refused: user %d has %u of %u connections, or all have %u of %u "
                    "(max_clients_per_user, max_clients)",
                    peer->pid, peer->uid, connections_of(control, peer->uid),
                    control->settings->max_clients_per_user, control->connections->len,
                    control->settings->max_clients);
    reply->type = CLIENT_ERROR;
    reply->serial = 0;
    reply->status.status = -EUSERS;
    reply->status.seal = 0;
    g_strlcpy(reply->status.text, "too many connections to this daemon", sizeof reply->status.text);
    client_message_send(fd, reply, NULL, 0, control->packet);
    close(fd);
}

void admission_accept(Control *control, int fd)
{
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t length = sizeof peer;

    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length);
    if (is_crowded(control, peer.uid))
        turn_away(control, fd, &peer);
    else
        connection_new(control, fd);
}

/* A client tries again every second: what it is refused for is logged once a process. */
void admission_log_refusal(Connection *connection, const char *text)
{
    GHashTable *refusals = connection->control->refusals;
    gpointer pid = GINT_TO_POINTER(connection->peer.pid);

    if (g_strcmp0(g_hash_table_lookup(refusals, pid), text) == 0)
        return;
    if (g_hash_table_size(refusals) >= REFUSALS_MAX)
        g_hash_table_remove_all(refusals);
    g_hash_table_insert(refusals, pid, g_strdup(text));
    log_warning("client pid %d refused: %s", connection->peer.pid, text);
}
