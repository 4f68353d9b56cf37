/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where another host's daemon listens, as a person names it: HOST, HOST:PORT, or with an IPv6 address in
 * brackets.  Without a port it is the one that daemons listen at by default.
 */
#ifndef POSTCOPYD_CTL_ADDRESS_H
#define POSTCOPYD_CTL_ADDRESS_H

#include <glib.h>

/* The host without brackets, and the port; the caller's, also after FALSE: it is no address. */
gboolean address_split(const char *text, char **ret_host, char **ret_port);

/* HOST:PORT or [IPV6]:PORT; the caller's.  NULL with an error of usage that begins with option. */
char *address_complete(const char *option, const char *text, GError **error);

#endif
