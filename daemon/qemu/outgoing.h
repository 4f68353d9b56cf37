/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The connections over which a process sends a migration to one place: found when that begins, and looked
 * for again, as they end with it.  An address alone would also be that of a later migration, or of
 * something else the process has to do with that host.  Worker threads: reads files.
 */
#ifndef POSTCOPYD_QEMU_OUTGOING_H
#define POSTCOPYD_QEMU_OUTGOING_H

#include "daemon/qemu/sockets.h"

enum { OUTGOING_MAX = 16 }; /* one migration may use several */

typedef struct Outgoing {
    SocketEnd remote;
    uint32_t n;
    uint64_t inodes[OUTGOING_MAX]; /* a socket's is its own as long as it exists */
} Outgoing;

/* Those that are established with that end, an address and port as text.  0, or negative errno with a
 * reason in ret_text[LIMIT_TEXT + 1]. */
int outgoing_find(int pid, const char *remote, Outgoing *ret_outgoing, char *ret_text);

/* 0: the process has one of them still.  -ENOTCONN: none, so that migration has ended.  Other negative
 * errno: nobody knows.  With a reason. */
int outgoing_check(int pid, const Outgoing *outgoing, char *ret_text);

#endif
