/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Answers READ and MAP_REQUEST on one data channel.  A thread a channel, so that a demand page never
 * waits behind the stream; no state but the export's.
 */
#ifndef POSTCOPYD_SOURCE_SERVER_H
#define POSTCOPYD_SOURCE_SERVER_H

#include "daemon/source/export.h"

/* Serves until the connection ends or its peer misbehaves.  fd stays the caller's, and blocks. */
void server_run(Export *export, ExportChannel *channel, int fd, uint32_t session,
                uint32_t generation);

#endif
