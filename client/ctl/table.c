/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/format.h"

struct Table {
    GPtrArray *titles; /* without the sign of their alignment */
    GArray *right;     /* of gboolean, a column each */
    GPtrArray *cells;  /* row after row */
};

Table *table_new(const char *const *titles)
{
    Table *table = g_new0(Table, 1);

    table->titles = g_ptr_array_new_with_free_func(g_free);
    table->right = g_array_new(FALSE, FALSE, sizeof(gboolean));
    table->cells = g_ptr_array_new_with_free_func(g_free);
    for (; *titles; titles++) {
        gboolean right = **titles == '>';

        g_ptr_array_add(table->titles, g_strdup(*titles + (right ? 1 : 0)));
        g_array_append_val(table->right, right);
    }
    return table;
}

void table_free(Table *table)
{
    if (!table)
        return;
    g_ptr_array_unref(table->titles);
    g_array_unref(table->right);
    g_ptr_array_unref(table->cells);
    g_free(table);
}

void table_add(Table *table, char *text)
{
    g_ptr_array_add(table->cells, text);
}

guint table_rows(const Table *table)
{
    return table->cells->len / table->titles->len;
}

static guint width(const char *text)
{
    return (guint)g_utf8_strlen(text, -1);
}

static guint column_width(const Table *table, guint column)
{
    guint widest = width(g_ptr_array_index(table->titles, column));

    for (guint i = column; i < table->cells->len; i += table->titles->len)
        widest = MAX(widest, width(g_ptr_array_index(table->cells, i)));
    return widest;
}

static void append_row(const Table *table, char *const *cells, const char *indent, GString *text)
{
    g_string_append(text, indent);
    for (guint i = 0; i < table->titles->len; i++) {
        guint padding = column_width(table, i) - width(cells[i]);
        gboolean right = g_array_index(table->right, gboolean, i);

        if (i > 0)
            g_string_append(text, "  ");
        if (right)
            g_string_append_printf(text, "%*s%s", (int)padding, "", cells[i]);
        else
            g_string_append_printf(text, "%s%*s", cells[i], (int)padding, "");
    }
    while (text->len > 0 && text->str[text->len - 1] == ' ')
        g_string_truncate(text, text->len - 1);
    g_string_append_c(text, '\n');
}

static gboolean has_titles(const Table *table)
{
    for (guint i = 0; i < table->titles->len; i++)
        if (*(const char *)g_ptr_array_index(table->titles, i))
            return TRUE;
    return FALSE;
}

char *table_render(const Table *table, const char *indent)
{
    GString *text = g_string_new(NULL);

    if (has_titles(table))
        append_row(table, (char *const *)table->titles->pdata, indent, text);
    for (guint row = 0; row < table_rows(table); row++)
        append_row(table, (char *const *)table->cells->pdata + (gsize)row * table->titles->len,
                   indent, text);
    return g_string_free(text, FALSE);
}
