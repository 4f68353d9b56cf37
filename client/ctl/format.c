/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/format.h"

#include <inttypes.h>

/* Three significant figures are what people read. */
static char *format_scaled(double value, const char *unit)
{
    return g_strdup_printf(value < 9.995   ? "%.2f %s"
                           : value < 99.95 ? "%.1f %s"
                                           : "%.0f %s",
                           value, unit);
}

char *format_bytes(guint64 bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes / 1024;
    guint unit = 0;

    if (bytes < 1024)
        return g_strdup_printf("%" PRIu64 " B", bytes);
    for (; value >= 1023.5 && unit + 1 < G_N_ELEMENTS(units); unit++)
        value /= 1024;
    return format_scaled(value, units[unit]);
}

char *format_nanoseconds(guint64 ns)
{
    static const char *const units[] = {"µs", "ms", "s"};
    double value = (double)ns / 1000;
    guint unit = 0;

    if (ns < 1000)
        return g_strdup_printf("%" PRIu64 " ns", ns);
    for (; value >= 999.5 && unit + 1 < G_N_ELEMENTS(units); unit++)
        value /= 1000;
    return format_scaled(value, units[unit]);
}

char *format_seconds(double seconds)
{
    guint64 whole = (guint64)(MAX(seconds, 0) + 0.5);

    if (seconds < 59.95)
        return g_strdup_printf("%.1f s", MAX(seconds, 0));
    if (whole < 3600)
        return g_strdup_printf("%" PRIu64 " min %" PRIu64 " s", whole / 60, whole % 60);
    return g_strdup_printf("%" PRIu64 " h %" PRIu64 " min", whole / 3600, whole % 3600 / 60);
}

char *format_time(gint64 us)
{
    g_autoptr(GDateTime) time = g_date_time_new_from_unix_local(us / G_USEC_PER_SEC);

    return time ? g_date_time_format(time, "%Y-%m-%d %H:%M:%S") : g_strdup("?");
}

char *format_percent(guint64 part, guint64 whole)
{
    double percent = whole ? 100.0 * (double)part / (double)whole : 0;

    if (whole == 0)
        return g_strdup("-");
    return g_strdup_printf("%u %%", part >= whole ? 100 : (guint)MIN(percent, 99));
}

char *format_bar(double fraction, guint columns, gboolean ascii)
{
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    GString *bar = g_string_new(NULL);
    guint parts = (guint)(CLAMP(fraction, 0, 1) * columns * 8 + 0.5);
    guint used = parts / 8;

    for (guint i = 0; i < used; i++)
        g_string_append(bar, ascii ? "#" : "█");
    if (used < columns && !ascii && parts % 8) {
        g_string_append(bar, eighths[parts % 8]);
        used++;
    }
    for (; used < columns; used++)
        g_string_append_c(bar, ascii ? '.' : ' ');
    return g_string_free(bar, FALSE);
}

gboolean format_is_ascii(void)
{
    return !g_get_charset(NULL);
}

char *format_histogram(const guint64 *counts, guint n, guint columns, gboolean ascii)
{
    GString *text = g_string_new(NULL);
    g_autoptr(Table) table = table_new((const char *const[]){">", "", ">", NULL});
    guint first = n, last = 0;
    guint64 most = 0;

    for (guint i = 0; i < MIN(n, 63); i++) {
        if (counts[i] == 0)
            continue;
        first = MIN(first, i);
        last = i;
        most = MAX(most, counts[i]);
    }
    for (guint i = first; first < n && i <= last; i++) {
        g_autofree char *from = format_nanoseconds(G_GUINT64_CONSTANT(1) << i);
        double share = (double)counts[i] / (double)most;

        /* A bucket that holds anything shows something. */
        if (counts[i])
            share = MAX(share, (ascii ? 1.0 : 0.125) / columns);
        table_add(table, g_steal_pointer(&from));
        table_add(table, format_bar(share, columns, ascii));
        table_add(table, g_strdup_printf("%" PRIu64, counts[i]));
    }
    if (table_rows(table) > 0) {
        g_autofree char *rendered = table_render(table, "  ");
        g_string_append(text, rendered);
    }
    return g_string_free(text, FALSE);
}
