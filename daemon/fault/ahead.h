/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The head start of assist mode.  QEMU's own stream brings all memory too, and slower; each of both takes CPU
 * and link from the other.  So for a while after the gate opened, the stream goes before it (the pages that
 * changed last, then whatever the source has content for), and the client holds QEMU's back as long as it
 * gets on (protocol/pagetable.h: ahead_ns).  Once all is here the guest may catch up for as long as it took, for
 * what QEMU's stream still has to bring is there already, and takes its CPU.  After that only faults are
 * served: without an end, a migration would take twice as long where the link is what it waits for.
 *
 * It is not taken where somebody limits either of the two streams, and soon given up where memory comes so
 * slowly that the link must be what bounds it: there, whatever comes twice is waited for twice.
 * Stream thread.
 */
#ifndef POSTCOPYD_FAULT_AHEAD_H
#define POSTCOPYD_FAULT_AHEAD_H

#include <stdbool.h>
#include <stdint.h>

struct Import;

enum {
    AHEAD_TICK_MS = 20,
    AHEAD_PROVE_MS = 250, /* from then on, */
    AHEAD_LEAST_MB_S =
        200, /* so many bytes a microsecond must have come, by faults and stream together */
};

typedef enum AheadStage {
    AHEAD_DUE,
    AHEAD_GOES,     /* QEMU's stream is held */
    AHEAD_CATCHING, /* likewise, and all is here */
    AHEAD_OVER,
} AheadStage;

typedef struct Ahead {
    AheadStage stage;
    uint64_t caught_ns; /* when the guest will have caught up */
} Ahead;

/* True while the stream may go before QEMU's; false for an import of direct mode, too. */
bool ahead_goes_on(Ahead *ahead, struct Import *import, uint64_t now_ns);

/* Something came, or is asked for: QEMU's stream is held for another moment. */
void ahead_moved(Ahead *ahead, struct Import *import, uint64_t now_ns);

/* The connection of the map is lost: there is no head start over another one, which might be lost for the same
 * reason. */
void ahead_lost(Ahead *ahead, struct Import *import, uint64_t now_ns);

/* All came that there is.  Nothing if there is no head start. */
void ahead_complete(Ahead *ahead, struct Import *import, uint64_t now_ns);

/* While the guest catches up, to be called every AHEAD_TICK_MS; ends it, too. */
void ahead_catch_up(Ahead *ahead, struct Import *import, uint64_t now_ns);

#endif
