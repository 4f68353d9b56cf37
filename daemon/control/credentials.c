/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/credentials.h"

#include <errno.h>

enum { GROUPS_FIRST = 64 };

/* All supplementary groups, or NULL. */
static gid_t *read_groups(int socket, gsize *ret_n)
{
    socklen_t size = GROUPS_FIRST * sizeof(gid_t);
    gid_t *groups = g_malloc(size);

    while (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups, &size)) {
        int error = errno;

        g_free(groups);
        if (error != ERANGE)
            return NULL;
        groups = g_malloc(size); /* which now says how much it takes */
    }
    *ret_n = size / sizeof(gid_t);
    return groups;
}

gboolean credentials_have_group(int socket, const struct ucred *peer, gid_t group)
{
    g_autofree gid_t *groups = NULL;
    gsize n = 0;

    if (peer->gid == group)
        return TRUE;
    groups = read_groups(socket, &n);
    for (gsize i = 0; groups && i < n; i++)
        if (groups[i] == group)
            return TRUE;
    return FALSE;
}
