/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Asks a QEMU for its guest's main memory, and whether it can migrate by itself. */
#ifndef POSTCOPYD_QMP_BLOCKS_H
#define POSTCOPYD_QMP_BLOCKS_H

#include "protocol/qmp/layout.h"
#include "protocol/qmp/monitor.h"

/*
 * The RAM blocks that are memory backends, with all fields set.  Refuses a QEMU whose memory would
 * travel in its own stream, or not at all; the message says how to start it instead.
 */
GPtrArray *blocks_query(const Monitor *monitor, const char *word, GError **error);

/*
 * Every RAM block of at least so many bytes that the guest sees, whatever is behind it: with all fields
 * set, in no order.  More than LIMIT_REGIONS are refused before the first is asked about.
 */
GPtrArray *blocks_query_any(const Monitor *monitor, guint64 least, GError **error);

#endif
