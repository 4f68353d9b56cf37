/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The data channels' connections, as the link makes them and takes them back.  All of them are joined, and have
 * their lanes where they are to have some, before the first is handed over: so it is RDMA for all, or
 * for none.  The link's thread.
 */
#ifndef POSTCOPYD_FAULT_LINK_CHANNELS_H
#define POSTCOPYD_FAULT_LINK_CHANNELS_H

#include "daemon/fault/link.h"

/* 0, or negative errno with a line in ret_text: nothing was handed over then. */
int link_channels_join(Link *link, char *ret_text);

/* They have to go. */
void link_channels_revoke(Link *link);

/* True once their threads have let go of all of them, and of the lanes. */
bool link_channels_are_idle(Link *link);

#endif
