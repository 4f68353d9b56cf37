/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Carries QEMU's device state: copies bytes both ways between a UNIX socket at a QEMU and the relay
 * channel to the other daemon.  What is in it is QEMU's business.
 */
#ifndef POSTCOPYD_TRANSPORT_RELAY_H
#define POSTCOPYD_TRANSPORT_RELAY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct Relay {
    _Atomic bool stop;      /* set by anyone: ends within 100 ms */
    _Atomic uint64_t bytes; /* carried, both ways */
} Relay;

/*
 * Copies until both ends are closed, one failed, or stop is set; an end of stream on one side is
 * passed on as one.  What one side does not read is kept, up to 256 MiB a direction: the other need not
 * wait for it.  Blocks; the fds stay the caller's. 0 or negative errno.
 */
int relay_run(Relay *relay, int left, int right);

#endif
