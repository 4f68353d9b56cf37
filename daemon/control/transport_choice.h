/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which transport a VM's memory takes: what whoever drives the migration says, before what the
 * configurations of both hosts say; and whether RDMA may be used at all (docs/RDMA.md).  A configured "tcp"
 * is a veto on either side, whoever wants RDMA.
 *
 *   source       its driver's word, or else its own configuration's, goes into the INVITE
 *   destination  the INVITE's word, or else its own configuration's, goes into the import
 *
 * Control thread, but for what is said to be for any.
 */
#ifndef POSTCOPYD_CONTROL_TRANSPORT_CHOICE_H
#define POSTCOPYD_CONTROL_TRANSPORT_CHOICE_H

#include <json-glib/json-glib.h>

#include "daemon/control/arrival.h"
#include "daemon/control/control.h"

/* "auto", "tcp", "rdma". */
const char *transport_name(unsigned transport);

/*
 * Member "transport" of a request to prepare a migration; AUTO if there is none.  FALSE with a line in
 * ret_text[LIMIT_TEXT + 1]: it is no such word, or RDMA, which this host cannot have.
 */
gboolean transport_asked(const Control *control, JsonObject *request, unsigned *ret_transport,
                         char *ret_text);

/*
 * The flags of an INVITE to the daemon at the other end of this connection, for what was asked for
 * (AUTO: nothing in particular).  FALSE with a line in ret_text: RDMA, which cannot be.  Any thread.
 */
gboolean transport_invite(const Settings *settings, unsigned asked, const PeerSocket *peer,
                          guint32 *ret_flags, char *ret_text);

/* Whether an invitation from that host can be had as it wants it.  FALSE with a line in ret_text. */
gboolean transport_accept(const Control *control, const Invitation *invitation, char *ret_text);

/*
 * Whether this host, as a source, lets that one read by RDMA at all.  FALSE with a line in ret_text, for the other
 * host.  Any thread.
 */
gboolean transport_lends(const Settings *settings, const char *host, char *ret_text);

/* Fills in an import's part.  source: HOST:PORT of its daemon; flags: the INVITE's. */
void transport_configure(Control *control, const char *source, guint32 flags, ImportConfig *config);

/* Keeps for the next daemon what the INVITE wanted. */
void transport_remember(PageTable *table, guint32 flags);

/* The same as transport_configure() for an import that is taken over: its page table, a fd, says where its source
 * is, and what was wanted.  A fd that is no memory is not read. */
void transport_configure_adopted(Control *control, int table, ImportConfig *config);

#endif
