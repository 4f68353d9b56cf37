/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How memory travels, TCP or RDMA: as people say it, and as they are told (docs/RDMA.md). */
#ifndef POSTCOPYD_CTL_TRANSPORT_H
#define POSTCOPYD_CTL_TRANSPORT_H

#include <json-glib/json-glib.h>

/* NULL, "auto", "tcp" and "rdma" are fine; FALSE with CALL_ERROR_USAGE. */
gboolean transport_check_word(const char *word, GError **error);

/* Of status's "rdma": how many of [rdma] peers have this word (NULL: any); whether no host is talked to by RDMA,
 * whatever networks are trusted. */
guint transport_peers_with(JsonObject *rdma, const char *wanted);
gboolean transport_never_rdma(JsonObject *rdma);

/* An import's, in a word or two: "rdma rxe0"; "-" if its daemon does not say. */
char *transport_word(JsonObject *import);

/*
 * What the operator should know of an import's transport; "" if there is nothing.  status: the daemon's
 * whole answer.  That a host that was not set up for RDMA does not use it is nothing worth a word.
 */
char *transport_remark(JsonObject *status, JsonObject *import);

/* A line of figures, of an import and of an export; NULL: there is nothing to tell. */
char *transport_import_line(JsonObject *import);
char *transport_export_line(JsonObject *export);

/* Of the host; NULL: it is not set up for RDMA. */
char *transport_host_line(JsonObject *status);

#endif
