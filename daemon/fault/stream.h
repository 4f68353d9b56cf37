/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The stream: one thread that learns from the source which pages have content (MAP) and fetches what
 * nobody asked for yet, near the last faults first, over bulk channels of its own, no more bytes under
 * way than the link needs (pace.h), no faster than it is allowed to (rate.h).  It also notices when nothing is missing any more.
 */
#ifndef POSTCOPYD_FAULT_STREAM_H
#define POSTCOPYD_FAULT_STREAM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/ring.h"
#include "daemon/fault/ahead.h"
#include "daemon/fault/offer.h"
#include "daemon/fault/pace.h"
#include "daemon/fault/rate.h"
#include "daemon/fault/stream_keys.h"
#include "daemon/fault/stream_walk.h"
#include "daemon/transport/channel.h"
#include "protocol/limits.h"

struct Import;

enum { STREAM_CHANNELS_MAX = 8 };

typedef struct StreamChannel {
    struct Stream *stream;
    Offer offer;
    Channel channel;
} StreamChannel;

typedef struct Stream {
    struct Import *import;
    pthread_t thread;
    bool started;
    bool initialised;
    Ring ring;
    unsigned n_channels;
    StreamChannel channels[STREAM_CHANNELS_MAX];
    _Atomic bool stop;
    bool open;       /* the gate is, as far as this thread knows */
    bool populating; /* the mirror, while the gate is shut */
    bool preparing;  /* blocks of it to land in, likewise */
    bool noted;      /* assist mode: what the client marked MISSING */
    Ahead ahead;     /* likewise */

    /* The map: what is known of it. */
    uint32_t map_region;
    uint64_t map_page;
    bool map_asked, map_complete;
    bool mapping; /* it was asked for once */
    uint64_t populated_bytes;
    uint64_t settled; /* up to this retirement nothing is left of what went (hotplug.h) */

    uint64_t in_flight; /* bytes asked for */
    Pace pace;
    Rate rate;
    uint64_t urgent_seen; /* bytes that faults took, as far as rate knows of them */
    uint64_t held_ns;     /* rate holds it back for so long */
    uint64_t tidied_ns;   /* when blocks to land in were last looked through */
    StreamWalk walk;
    StreamKeys keys;
    bool complete;
    _Atomic uint64_t wakeups;
    _Atomic uint64_t window, chunk; /* as last used; for reports */
} Stream;

int stream_start(Stream *stream, struct Import *import);
void stream_stop(Stream *stream);

/* Something it waits for has changed: gate, RUNNING. Any thread. */
void stream_wake(Stream *stream);

#endif
