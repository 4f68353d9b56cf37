/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/address.h"

#include <string.h>

#include "protocol/qmp/error.h"

#define DEFAULT_PORT "16520"

static gboolean is_port(const char *text)
{
    guint64 port;

    return g_ascii_string_to_unsigned(text, 10, 1, G_MAXUINT16, &port, NULL);
}

gboolean address_split(const char *text, char **ret_host, char **ret_port)
{
    const char *end = text[0] == '[' ? strchr(text, ']') : strchr(text, ':');
    const char *host = text[0] == '[' ? text + 1 : text;

    *ret_host = end ? g_strndup(host, (gsize)(end - host)) : g_strdup(host);
    if (end && *end == ']')
        end = end[1] ? end + 1 : NULL;
    *ret_port = g_strdup(end ? end + 1 : DEFAULT_PORT);
    return **ret_host && is_port(*ret_port) && (!end || *end == ':') &&
           (text[0] != '[' || strchr(text, ']'));
}

char *address_complete(const char *option, const char *text, GError **error)
{
    g_autofree char *host = NULL, *port = NULL;

    if (address_split(text, &host, &port))
        return g_strdup_printf(strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
    g_set_error(error, CALL_ERROR, CALL_ERROR_USAGE,
                "%s '%s' is no address: HOST or HOST:PORT, with a port up to 65535 and an IPv6 "
                "address in brackets",
                option, text);
    return NULL;
}
