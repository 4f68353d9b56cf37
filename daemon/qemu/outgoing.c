/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/qemu/outgoing.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "protocol/limits.h"

static int cannot_look(int error, char *ret_text)
{
    snprintf(ret_text, LIMIT_TEXT + 1, "cannot look at the connections of its process: %s",
             strerror(-error));
    return error;
}

/* 0 or negative errno. */
static int collect(int pid, const SocketEnd *remote, Outgoing *ret_outgoing)
{
    int n;

    *ret_outgoing = (Outgoing){.remote = *remote};
    n = sockets_find_remote(pid, remote, ret_outgoing->inodes, OUTGOING_MAX);
    if (n > 0)
        ret_outgoing->n = (uint32_t)n;
    return n < 0 ? n : 0;
}

int outgoing_find(int pid, const char *remote, Outgoing *ret_outgoing, char *ret_text)
{
    SocketEnd end;
    int error;

    if (!socket_end_parse(remote, &end)) {
        snprintf(ret_text, LIMIT_TEXT + 1, "'%.100s' is no address and port of a connection",
                 remote);
        return -EINVAL;
    }
    error = collect(pid, &end, ret_outgoing);
    if (error)
        return cannot_look(error, ret_text);
    if (ret_outgoing->n > 0)
        return 0;
    snprintf(ret_text, LIMIT_TEXT + 1, "its QEMU has no connection to %.100s", remote);
    return -ENOTCONN;
}

int outgoing_check(int pid, const Outgoing *outgoing, char *ret_text)
{
    Outgoing now;
    int error = collect(pid, &outgoing->remote, &now);

    if (error)
        return cannot_look(error, ret_text);
    for (uint32_t i = 0; i < now.n; i++)
        for (uint32_t j = 0; j < outgoing->n; j++)
            if (now.inodes[i] == outgoing->inodes[j])
                return 0;
    snprintf(ret_text, LIMIT_TEXT + 1, "the connection of its migration has ended");
    return -ENOTCONN;
}
