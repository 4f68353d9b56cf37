/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How far an import is: the daemon's word on it, its rate, and the time that is left. */
#ifndef POSTCOPYD_CTL_PROGRESS_H
#define POSTCOPYD_CTL_PROGRESS_H

#include <json-glib/json-glib.h>

typedef struct Progress {
    char *state; /* the field's word, as client_state_name() */
    char *text;  /* a reason, or "" */
    guint64 populated_bytes;
    guint64 present_bytes;
    guint64 missing_at_running;
    guint64 faults;
    guint64 received_bytes;
    guint64 fault_p50_ns;
    guint64 fault_p99_ns;
    double rate; /* bytes a second that became present, smoothed; 0: not known */
    gint64 rate_time_us;
    guint64 rate_bytes;
} Progress;

typedef enum ProgressVerdict {
    PROGRESS_GOES_ON,
    PROGRESS_COMPLETE, /* all memory is there, the destination has not let go yet */
    PROGRESS_DONE,
    PROGRESS_FAILED,
} ProgressVerdict;

void progress_deinit(Progress *progress);

/* Takes over an answer to the request "progress" that came at now_us. */
void progress_update(Progress *progress, JsonObject *answer, gint64 now_us);

ProgressVerdict progress_verdict(const Progress *progress);

/* Seconds until all memory is there; negative: not known. */
double progress_seconds_left(const Progress *progress);

/* One line for people; with a bar of so many columns, or without for 0. The caller's. */
char *progress_line(const Progress *progress, guint columns, gboolean ascii);

/* Sets the members of a JSON object. */
void progress_to_json(const Progress *progress, JsonObject *object);

#endif
