/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who is at the other end of a UNIX socket, as the kernel noted when it connected: no name is looked
 * up, so nothing here waits for a name service.  Any thread.
 */
#ifndef POSTCOPYD_CONTROL_CREDENTIALS_H
#define POSTCOPYD_CONTROL_CREDENTIALS_H

#include <glib.h>
#include <sys/socket.h>

/*
 * True if the process that connected had this group, as its own or among its supplementary ones.  peer is
 * what SO_PEERCRED says of the socket.  False if the kernel does not tell.
 */
gboolean credentials_have_group(int socket, const struct ucred *peer, gid_t group);

#endif
