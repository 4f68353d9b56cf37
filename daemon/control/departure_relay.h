/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The source's end of the device state relay: a UNIX socket for its QEMU to migrate to. */
#ifndef POSTCOPYD_CONTROL_DEPARTURE_RELAY_H
#define POSTCOPYD_CONTROL_DEPARTURE_RELAY_H

#include <sys/types.h>

#include "daemon/source/export.h"

/* A listening socket at path that only user uid may connect to. A fd or negative errno. */
int departure_relay_listen(const char *path, uid_t uid);

/* Waits for the QEMU of the export and copies between it and the relay channel. Blocks. */
void departure_relay_run(Export *export, int channel);

#endif
