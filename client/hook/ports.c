/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/hook/ports.h"

#include <string.h>

#include "protocol/qmp/error.h"

/* Fields of a line of /proc/PID/net/tcp. */
enum { FIELD_LOCAL = 1, FIELD_STATE = 3, FIELD_INODE = 9, FIELDS = 10 };

/* In hexadecimal digits, as the kernel writes it. */
#define LISTENING "0A"

enum { PORTS_MAX = 1024 }; /* as many as fit a request, and more than any QEMU has */

/* The targets of all its fds, those of sockets being "socket:[INODE]"; NULL with error. */
static GHashTable *read_fds(pid_t pid, GError **error)
{
    g_autofree char *folder = g_strdup_printf("/proc/%d/fd", (int)pid);
    GDir *entries = g_dir_open(folder, 0, error);
    GHashTable *targets;
    const char *name;

    if (!entries)
        return NULL;
    targets = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    while ((name = g_dir_read_name(entries))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        char *target = g_file_read_link(path, NULL);

        if (target)
            g_hash_table_add(targets, target);
    }
    g_dir_close(entries);
    return targets;
}

/* Cuts the line into its fields. FALSE: it has fewer. */
static gboolean split(char *line, char *ret_fields[FIELDS])
{
    for (int i = 0; i < FIELDS; i++) {
        while (*line == ' ')
            line++;
        if (*line == '\0')
            return FALSE;
        ret_fields[i] = line;
        while (*line != ' ' && *line != '\0')
            line++;
        if (*line == ' ')
            *line++ = '\0';
    }
    return TRUE;
}

static void take_line(char *line, GHashTable *fds, JsonArray *ports)
{
    g_autofree char *target = NULL;
    char *fields[FIELDS];
    const char *colon;

    if (!split(line, fields) || g_strcmp0(fields[FIELD_STATE], LISTENING) != 0)
        return;
    target = g_strdup_printf("socket:[%s]", fields[FIELD_INODE]);
    colon = strchr(fields[FIELD_LOCAL], ':');
    if (colon && g_hash_table_contains(fds, target))
        json_array_add_int_element(ports, (gint64)g_ascii_strtoull(colon + 1, NULL, 16));
}

static gboolean take_file(pid_t pid, const char *name, GHashTable *fds, JsonArray *ports,
                          GError **error)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/net/%s", (int)pid, name);
    g_autofree char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, error))
        return FALSE;
    for (char *line = text, *end; line && *line; line = end) {
        end = strchr(line, '\n');
        if (end)
            *end++ = '\0';
        take_line(line, fds, ports);
    }
    return TRUE;
}

JsonArray *ports_of_process(pid_t pid, GError **error)
{
    g_autoptr(GHashTable) fds = read_fds(pid, error);
    g_autoptr(JsonArray) ports = json_array_new();

    if (!fds || !take_file(pid, "tcp", fds, ports, error))
        return NULL;
    take_file(pid, "tcp6", fds, ports, NULL); /* there is none without IPv6 */
    if (json_array_get_length(ports) <= PORTS_MAX)
        return g_steal_pointer(&ports);
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "process %d listens at more than %d ports",
                (int)pid, PORTS_MAX);
    return NULL;
}
