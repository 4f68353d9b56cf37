/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A connection to the host's daemon for the operator's requests (docs/OPERATOR.md). */
#ifndef POSTCOPYD_OPERATOR_DAEMON_H
#define POSTCOPYD_OPERATOR_DAEMON_H

#include <json-glib/json-glib.h>

#include "protocol/qmp/wait.h"

typedef struct Daemon Daemon;

/* interrupt may be NULL, and must outlive the connection. */
Daemon *daemon_connect(const char *path, const Interrupt *interrupt, GError **error);
void daemon_free(Daemon *daemon);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Daemon, daemon_free)

/*
 * Sends a request and waits for its answer.  Takes request, which may be NULL; "op" is set here.
 * fd goes along unless it is negative, and stays the caller's.
 * CALL_ERROR_REFUSED: the daemon's own words.  CALL_ERROR_CLOSED, _TIMEOUT, _INTERRUPTED: whether the
 * daemon acted on the request is not known.
 */
JsonNode *daemon_call(Daemon *daemon, const char *op, JsonObject *request, int fd,
                      gint64 timeout_ms, GError **error);

/* The same for a request about one VM whose answer does not matter. */
gboolean daemon_vm_call(Daemon *daemon, const char *op, const char *vm, gint64 timeout_ms,
                        GError **error);

/* The errno (positive) of the daemon's own "no" to the last request, as far as it gave one; else 0. */
int daemon_refusal(const Daemon *daemon);

#endif
