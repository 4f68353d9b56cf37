/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a QEMU's answers mean: the one place that knows which of its states are safe. Any thread. */
#ifndef POSTCOPYD_QEMU_ANSWERS_H
#define POSTCOPYD_QEMU_ANSWERS_H

#include <json-glib/json-glib.h>

/*
 * Rule 1: whether by this answer to query-status no vCPU runs and none starts by itself.  *ret_status (the
 * caller's) is QEMU's word for it.  An answer that is none counts as running.
 */
gboolean answers_stopped(JsonNode *status, char **ret_status);

/* Whether an answer to query-status says that vCPUs run; an answer that says nothing does not. */
gboolean answers_say_running(JsonNode *status);

/* Whether by this answer to query-status vCPUs run; also if it does not say. */
gboolean answers_running(JsonNode *status);

/* The thread ids in an answer to query-cpus-fast, as QEMU's own process knows them: at most most. */
guint32 answers_vcpus(JsonNode *cpus, guint32 *ret_tids, guint32 most);

/* Of a "status" of query-migrate: it is under way, from its first moment on. */
gboolean answers_migrating(const char *status);

/*
 * The same of a guest that is to stand still for the migration that is under way, whose "status" this is: one
 * that somebody else stopped may run again until that has gone too far for it.
 */
gboolean answers_stopped_for(JsonNode *status, const char *migration, char **ret_status);

/* Likewise: a migration that came to nothing. */
gboolean answers_failed(const char *status);

/* Likewise: a migration whose guest has moved on, by post-copy. */
gboolean answers_moved_on(const char *status);

/* Whether by this answer to query-migrate-parameters post-copy is held to a rate; also if it does not say. */
gboolean answers_postcopy_limited(JsonNode *parameters);

#endif
