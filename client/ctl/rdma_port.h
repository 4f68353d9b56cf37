/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which RDMA device has an address of this host, as the kernel tells everybody in /sys. */
#ifndef POSTCOPYD_CTL_RDMA_PORT_H
#define POSTCOPYD_CTL_RDMA_PORT_H

#include <glib.h>

/*
 * The name of the InfiniBand or RoCE device that has this numeric address of this host, NULL if none has; the caller
 * frees it.  ret_active: whether that port has a link.  sys: "/sys", but for a test.
 *
 * The daemon finds its device in the same way (daemon/transport/rdma_find.c), but has to open it for that, which a
 * question is not worth.
 */
char *rdma_port_of(const char *sys, const char *address, gboolean *ret_active);

#endif
