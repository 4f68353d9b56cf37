/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The regions a client names, and the files they lie in. On the control thread. */
#ifndef POSTCOPYD_CONTROL_CONNECTION_REGIONS_H
#define POSTCOPYD_CONTROL_CONNECTION_REGIONS_H

#include "daemon/control/connection.h"

/* Takes the regions and their RAM fds out of a HELLO. FALSE with a line in ret_text. */
gboolean connection_take_regions(Connection *connection, const ClientHello *hello, char *ret_text);

/* The file of a region that is shared, as a fd of its own: two regions may name the same; -1 for other
 * memory.  FALSE with a line in ret_text. */
gboolean connection_take_file(const Connection *connection, const ClientRegion *region, int *ret_fd,
                              char *ret_text);

/* Carry out, and answer, the REGION_ADD or REGION_REMOVE in control->message. */
void connection_add_region(Connection *connection);
void connection_remove_region(Connection *connection);

#endif
