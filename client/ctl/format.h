/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Numbers, bars and tables for people.  All strings are the caller's. */
#ifndef POSTCOPYD_CTL_FORMAT_H
#define POSTCOPYD_CTL_FORMAT_H

#include <glib.h>

/* "1.5 GiB" */
char *format_bytes(guint64 bytes);

/* "35.2 µs" */
char *format_nanoseconds(guint64 ns);

/* "4.2 s", "3 min 20 s", "2 h 5 min" */
char *format_seconds(double seconds);

/* "2026-03-01 12:03:05" where this runs; us: since 1970. */
char *format_time(gint64 us);

/* "58 %", of a whole that may be 0 ("-"); 100 only when all of it is there. */
char *format_percent(guint64 part, guint64 whole);

/* A bar of so many columns; ascii for a terminal without UTF-8. */
char *format_bar(double fraction, guint columns, gboolean ascii);

/* Whether the terminal's characters are ASCII only. */
gboolean format_is_ascii(void);

/*
 * Counts of latencies in [2^i, 2^(i+1)) ns as one line a bucket, from the first to the last that is
 * not 0; the longest bar has so many columns.  "" if there are none.
 */
char *format_histogram(const guint64 *counts, guint n, guint columns, gboolean ascii);

/* Rows of cells, as wide as the widest of each column. */
typedef struct Table Table;

/* The titles, NULL at the end; one that begins with '>' is aligned to the right. */
Table *table_new(const char *const *titles);
void table_free(Table *table);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Table, table_free)

/* Adds a cell; a row begins by itself.  Takes text. */
void table_add(Table *table, char *text);
guint table_rows(const Table *table);

/* Every line begins with indent. */
char *table_render(const Table *table, const char *indent);

#endif
