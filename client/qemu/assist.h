/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Assist mode: QEMU's own post-copy, with the daemon resolving its faults as long as it can.
 *
 * The thread "postcopy-assist" asks the daemon for a plan whenever QEMU opens a userfaultfd, tells it
 * when QEMU listens and when all is over, and watches over the faults meanwhile.
 */
#ifndef POSTCOPY_QEMU_ASSIST_H
#define POSTCOPY_QEMU_ASSIST_H

/* QEMU opened a userfaultfd.  Starts the thread with the first one of an incoming QEMU.  Any thread. */
void assist_opened(void);

#endif
