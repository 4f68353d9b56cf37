/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a sealed export needs to outlive its daemon: kept by the source's client (KEEP) and presented
 * in its next HELLO.  The guest's memory stays in the client; the token and the seal let its
 * destination go on where it was.
 */
#ifndef POSTCOPYD_CONTROL_DEPARTURE_KEEP_H
#define POSTCOPYD_CONTROL_DEPARTURE_KEEP_H

#include "daemon/control/departure.h"
#include "protocol/wire.h"

/* Has the client keep this sealed departure; or, once it is over, nothing. */
void departure_keep(Departure *departure);

/* What a sealed export is, but for its memory; at the end of what w holds. */
typedef struct Kept {
    guint64 seal;
    gboolean fenced;
    guint8 token[LIMIT_TOKEN];
} Kept;

void departure_pack(const Departure *departure, guint64 seal, WireWriter *w);

/* The reverse, into a new departure; named already has as many regions, which are given their names.
 * FALSE: malformed. */
gboolean departure_unpack_kept(WireReader *r, Departure *departure, RegionSet *named,
                               Kept *ret_kept);

/* Fills in a new departure and its export from what a client presented.  FALSE with a line in
 * ret_text: malformed, or its regions differ from then. */
gboolean departure_unpack(Departure *departure, const Connection *connection, ExportNotify notify,
                          char *ret_text);

#endif
