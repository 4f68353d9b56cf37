/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A QEMU's monitor, whichever way it is reached: a socket of its own (qmp.h), or a management layer that
 * passes commands on.
 */
#ifndef POSTCOPYD_QMP_MONITOR_H
#define POSTCOPYD_QMP_MONITOR_H

#include <json-glib/json-glib.h>

/*
 * No more than this is read of one answer, in bytes: QEMU may be in the hands of its guest, and what is
 * made of an answer takes up some thirty times as much.
 */
enum { MONITOR_ANSWER_MAX = 2 * 1024 * 1024 };

typedef struct Monitor {
    /* Runs a command; takes arguments, which may be NULL. The answer ("return") is the caller's. */
    JsonNode *(*call)(void *user, const char *command, JsonObject *arguments, GError **error);
    void *user;
    int version; /* QEMU's, major * 1000 + minor; 0: not known */
} Monitor;

JsonNode *monitor_call(const Monitor *monitor, const char *command, JsonObject *arguments,
                       GError **error);

/* The same where the answer does not matter. */
gboolean monitor_run(const Monitor *monitor, const char *command, JsonObject *arguments,
                     GError **error);

/* The member "status" of a query's answer ("" if it has none); NULL with error. */
char *monitor_query_status(const Monitor *monitor, const char *query, GError **error);

/* What the human monitor prints for this line. */
char *monitor_human(const Monitor *monitor, const char *line, GError **error);

/* Whether a migration capability is on; one that this QEMU does not know is off. FALSE with error. */
gboolean monitor_get_capability(const Monitor *monitor, const char *name, gboolean *ret_on,
                                GError **error);
gboolean monitor_set_capability(const Monitor *monitor, const char *name, gboolean on,
                                GError **error);

#endif
