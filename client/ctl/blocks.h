/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Asks a QEMU for its guest's main memory, and whether it can migrate by itself. */
#ifndef POSTCOPYD_CTL_BLOCKS_H
#define POSTCOPYD_CTL_BLOCKS_H

#include "client/ctl/layout.h"
#include "client/ctl/qmp.h"

/*
 * The RAM blocks that are memory backends, with all fields set.  Refuses a QEMU whose memory would
 * travel in its own stream, or not at all; the message says how to start it instead.
 */
GPtrArray *blocks_query(Qmp *qmp, const char *word, GError **error);

#endif
