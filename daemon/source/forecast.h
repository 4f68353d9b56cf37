/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a destination may allocate ahead: where the memory of a guest that still runs has content.
 * It says nothing about that content, and what it says may be outdated: rule 1 stays whole.
 */
#ifndef POSTCOPYD_SOURCE_FORECAST_H
#define POSTCOPYD_SOURCE_FORECAST_H

#include "daemon/source/memory.h"
#include "protocol/peer.h"

/* Makes ret_message a FORECAST. Blocks on the file system; a peer's thread. */
void forecast_make(const Memory *memory, PeerMessage *ret_message);

#endif
