/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The thread that tells libpostcopy of QEMU's memory and vCPUs.
 */
#ifndef POSTCOPY_QEMU_WATCHER_H
#define POSTCOPY_QEMU_WATCHER_H

/* Starts it, once, with all signals blocked.  Any thread. */
void watcher_start(void);

#endif
