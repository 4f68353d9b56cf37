/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a sealed export needs to outlive its daemon: kept by the source's client (KEEP) and presented
 * in its next HELLO.  The guest's memory stays in the client; the token and the seal let its
 * destination go on where it was.
 */
#ifndef POSTCOPYD_CONTROL_DEPARTURE_KEEP_H
#define POSTCOPYD_CONTROL_DEPARTURE_KEEP_H

#include "daemon/control/departure.h"

/* Has the client keep this sealed departure; or, once it is over, nothing. */
void departure_keep(Departure *departure);

/* Fills in a new departure and its export from what a client presented.  FALSE with a line in
 * ret_text: malformed, or its regions differ from then. */
gboolean departure_unpack(Departure *departure, const Connection *connection, ExportNotify notify,
                          char *ret_text);

#endif
