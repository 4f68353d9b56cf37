/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What in a domain's XML keeps its memory from being served, and where its destination's daemon is.
 * Text in, text out: nothing here talks to libvirt. */
#ifndef POSTCOPYD_CTL_LIBVIRT_OBSTACLE_H
#define POSTCOPYD_CTL_LIBVIRT_OBSTACLE_H

#include <glib.h>

/* One line that says what is in the way, the caller's; NULL if nothing is, or with error, which is not
 * an obstacle but XML that cannot be read. */
char *libvirt_obstacle(const char *domain_xml, GError **error);

/*
 * HOST:PORT of the daemon: what the operator said (may lack the port), or else the URI's host, with
 * our port.  The caller's; NULL with error.
 */
char *libvirt_daemon_address(const char *said, const char *uri, GError **error);

#endif
