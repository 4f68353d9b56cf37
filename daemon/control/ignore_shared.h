/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QEMU's capability x-ignore-shared stays on after a migration and would lose the guest's memory in a
 * later save or migration by other means.  At the destination of a migration through libvirt nobody else
 * sees to it, so the daemon clears it, through the second monitor that the hook gave the VM.
 */
#ifndef POSTCOPYD_CONTROL_IGNORE_SHARED_H
#define POSTCOPYD_CONTROL_IGNORE_SHARED_H

#include <glib.h>

/*
 * Clears it once the guest has loaded its devices, and tries again until it is done or the process has
 * ended, on a thread of its own.  The monitor is where a domain of that name has it
 * (protocol/qmp/second_monitor.h) and must be that of process pid; pidfd stays the caller's.  Any thread.
 */
void ignore_shared_clear(const char *name, int pid, int pidfd);

#endif
