/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a QEMU that arrives through libvirt makes its second monitor, for the hook and the daemon.
 *
 * The path stays in the XML of the domain that runs, and travels on with it: it has to be good on hosts that
 * never heard of us, or QEMU does not start there.  libvirt (6.0 and newer) makes that folder for sockets of
 * processes that run as its QEMUs do, and gives it to their user.  Where AppArmor confines them, libvirt
 * lets each have the files of this name below /run/libvirt, if they end in the domain's own name; so no
 * other guest's QEMU may touch them.  Any thread.
 */
#ifndef POSTCOPYD_QMP_SECOND_MONITOR_H
#define POSTCOPYD_QMP_SECOND_MONITOR_H

#include <glib.h>

/* run_folder is libvirt's for QEMUs that run; NULL: the usual one.  The caller's. */
char *second_monitor_folder(const char *run_folder);

/* That of the domain with this name; NULL if none can have it.  It may be too long for a socket.  The
 * caller's. */
char *second_monitor_path(const char *run_folder, const char *name);

#endif
