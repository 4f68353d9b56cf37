/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/config_lines.h"

#include <string.h>

static gboolean fail(gsize line, const char *text, const char *reason, GError **error)
{
    g_set_error(error, G_KEY_FILE_ERROR, G_KEY_FILE_ERROR_PARSE, "line %zu: %s: %s", line, text,
                reason);
    return FALSE;
}

/* NULL: it is one of its own. */
static const char *wrong_section(const char *line)
{
    return line[strlen(line) - 1] == ']' ? NULL : "a section's name ends with ]";
}

/* GLib keeps the last of several keys and forgets the others, which may be a veto. */
static const char *wrong_key(char *line, const char *section, GHashTable *seen)
{
    char *end = strchr(line, '=');

    if (!end)
        return "must be [SECTION], KEY = VALUE or # and a comment";
    *end = '\0';
    g_strchomp(line);
    if (!*section)
        return "stands before any [SECTION]";
    return g_hash_table_add(seen, g_strdup_printf("%s %s", section, line))
               ? NULL
               : "is set already further up: one line for each key";
}

gboolean config_lines_check(const char *text, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    const char *section = "";

    for (gsize i = 0; lines[i]; i++) {
        char *line = g_strstrip(lines[i]);
        const char *reason;

        if (line[0] == '\0' || line[0] == '#')
            continue;
        reason = line[0] == '[' ? wrong_section(line) : wrong_key(line, section, seen);
        if (reason)
            return fail(i + 1, line, reason, error);
        if (line[0] == '[')
            section = line;
    }
    return TRUE;
}
