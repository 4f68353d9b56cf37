/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A QMP monitor: commands with time limits, and events handed to a function as they are read.
 *
 * The connection may be lent to the daemon for the seal: nothing is read or kept here then that
 * belongs to it (qmp_drain()), and what it left half read is stepped over afterwards.
 */
#ifndef POSTCOPYD_QMP_QMP_H
#define POSTCOPYD_QMP_QMP_H

#include <json-glib/json-glib.h>
#include <sys/types.h>

#include "protocol/qmp/monitor.h"
#include "protocol/qmp/wait.h"

typedef struct Qmp Qmp;

/* An event and when QEMU says that it happened, in microseconds since the epoch. */
typedef void (*QmpEventFunc)(void *user, const char *event, JsonObject *data, gint64 time_us);

/*
 * Connects and negotiates.  word names the side in messages ("source") and, like interrupt, must
 * outlive the connection.
 */
Qmp *qmp_connect(const char *path, const char *word, const Interrupt *interrupt, GError **error);

/* The same, with this time limit for each of its steps, and for qmp_call() afterwards. */
Qmp *qmp_connect_within(const char *path, const char *word, const Interrupt *interrupt,
                        gint64 milliseconds, GError **error);
void qmp_free(Qmp *qmp);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Qmp, qmp_free)

void qmp_on_event(Qmp *qmp, QmpEventFunc function, void *user);

/* How long qmp_call() waits for an answer; 10 s at first. */
void qmp_set_timeout(Qmp *qmp, gint64 milliseconds);

/*
 * Runs a command; takes arguments, which may be NULL.  The answer is the caller's.
 * CALL_ERROR_REFUSED: QEMU's own words; CALL_ERROR_CLOSED, _TIMEOUT, _INTERRUPTED.
 */
JsonNode *qmp_call(Qmp *qmp, const char *command, JsonObject *arguments, GError **error);

/* The same where the answer does not matter. */
gboolean qmp_run(Qmp *qmp, const char *command, JsonObject *arguments, GError **error);

/* The member "status" of a query's answer ("" if it has none); NULL with error. */
char *qmp_query_status(Qmp *qmp, const char *query, GError **error);

/* Reads whatever is there, up to the end of a line, so that another process may read on. */
gboolean qmp_drain(Qmp *qmp, GError **error);

/* Another process has read from the connection: the next bytes may be the rest of a line. */
void qmp_resume(Qmp *qmp);

/*
 * Waits until one of the monitors had something to say and handles it.  A monitor at its end is
 * marked closed, which is no error.
 */
gboolean qmp_wait(Qmp *const *qmps, guint n, const Interrupt *interrupt, gint64 deadline,
                  GError **error);

gboolean qmp_is_closed(const Qmp *qmp);
int qmp_fd(const Qmp *qmp);

/* Who listens at the other end, as the kernel says; 0 if it does not. */
pid_t qmp_peer(const Qmp *qmp);

/* QEMU's version, major * 1000 + minor. */
int qmp_version(const Qmp *qmp);

/* For those who ask and do not care by which way; valid as long as qmp. */
Monitor qmp_monitor(Qmp *qmp);

#endif
