/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/peer_crowd.h"

void peer_crowd_init(PeerCrowd *crowd)
{
    *crowd = (PeerCrowd){.strangers = 0};
    pthread_mutex_init(&crowd->lock, NULL);
    crowd->hosts = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
}

void peer_crowd_deinit(PeerCrowd *crowd)
{
    g_hash_table_destroy(crowd->hosts);
    pthread_mutex_destroy(&crowd->lock);
}

/* --- under the lock ------------------------------------------------------------------------ */

static guint strangers_of(const PeerCrowd *crowd, const char *host)
{
    return GPOINTER_TO_UINT(g_hash_table_lookup(crowd->hosts, host));
}

static void count_strangers(PeerCrowd *crowd, const char *host, guint n)
{
    if (n > 0)
        g_hash_table_insert(crowd->hosts, g_strdup(host), GUINT_TO_POINTER(n));
    else
        g_hash_table_remove(crowd->hosts, host);
}

static void remove_stranger(PeerCrowd *crowd, const char *host)
{
    crowd->strangers--;
    count_strangers(crowd, host, strangers_of(crowd, host) - 1);
}

/* One line for all of a burst: others can provoke it as often as they like. */
static void tell(PeerCrowd *crowd, const char *host)
{
    if (log_limit_allows(&crowd->limit))
        log_warning("daemon at %s refused: too many connections: it has %u of %d that have not "
                    "shown what they are for, all have %u of %d, and %u of %d serve VMs",
                    host, strangers_of(crowd, host), PEER_STRANGERS_PER_HOST_MAX, crowd->strangers,
                    PEER_STRANGERS_MAX, crowd->proven, PEER_PROVEN_MAX);
}

/* --- for all ------------------------------------------------------------------------------- */

gboolean peer_crowd_enter(PeerCrowd *crowd, const char *host)
{
    gboolean room;

    pthread_mutex_lock(&crowd->lock);
    room = crowd->strangers < PEER_STRANGERS_MAX &&
           strangers_of(crowd, host) < PEER_STRANGERS_PER_HOST_MAX;
    if (room) {
        crowd->strangers++;
        count_strangers(crowd, host, strangers_of(crowd, host) + 1);
    } else {
        tell(crowd, host);
    }
    pthread_mutex_unlock(&crowd->lock);
    return room;
}

gboolean peer_crowd_prove(PeerCrowd *crowd, const char *host)
{
    gboolean room;

    pthread_mutex_lock(&crowd->lock);
    room = crowd->proven < PEER_PROVEN_MAX;
    if (room) {
        remove_stranger(crowd, host);
        crowd->proven++;
    } else {
        tell(crowd, host);
    }
    pthread_mutex_unlock(&crowd->lock);
    return room;
}

void peer_crowd_leave(PeerCrowd *crowd, const char *host, gboolean proven)
{
    pthread_mutex_lock(&crowd->lock);
    if (proven)
        crowd->proven--;
    else
        remove_stranger(crowd, host);
    pthread_mutex_unlock(&crowd->lock);
}
