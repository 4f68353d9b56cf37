/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The stream's map: it asks the source, one question at a time and in the order of the memory, which pages have
 * content, and makes them MISSING.  In assist mode only for the head start (ahead.h).
 *
 * The stream's thread.
 */
#ifndef POSTCOPYD_FAULT_STREAM_MAP_H
#define POSTCOPYD_FAULT_STREAM_MAP_H

#include <stdint.h>

#include "daemon/transport/channel.h"
#include "protocol/peer.h"

struct Stream;

/* Asks for more of it if that is due. */
void stream_map_step(struct Stream *stream);

/* A part of it came over this channel, which is dropped if nobody asked for that. */
void stream_map_arrived(struct Stream *stream, Channel *channel, uint32_t region,
                        const PeerMessage *map);

#endif
