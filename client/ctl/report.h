/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What "migrate" says while it works: lines and a bar for people, or JSON objects, one a line and
 * flushed at once, for programs.
 */
#ifndef POSTCOPYD_CTL_REPORT_H
#define POSTCOPYD_CTL_REPORT_H

#include "client/ctl/progress.h"

typedef struct Report {
    gboolean json;
    gboolean terminal; /* stdout is one */
    const char *vm;
    gint64 started_us;
    gint64 progress_us; /* when progress was last shown */
    gboolean bar;       /* the cursor stands behind a bar */
} Report;

void report_init(Report *report, const char *vm, gboolean json);

/* A new phase, what it means, and members for its JSON object; takes more, which may be NULL. */
void report_phase(Report *report, const char *phase, const char *text, JsonObject *more);

/* Something that the operator should know but that stops nothing. */
void report_note(Report *report, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* Shown as often as suits where it goes, and always when it is the last. */
void report_progress(Report *report, const Progress *progress);

/* The last word; takes members. error is NULL if all went well. */
void report_result(Report *report, JsonObject *members, const GError *error);

#endif
