/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which process libvirt started for a domain.  A QEMU says of itself what it likes; its pid file is the word
 * of whoever started it.
 */
#ifndef POSTCOPYD_QMP_LIBVIRT_PID_H
#define POSTCOPYD_QMP_LIBVIRT_PID_H

#include <glib.h>
#include <sys/types.h>

/* Where libvirt's QEMU driver keeps its pid files; $POSTCOPYD_LIBVIRT_RUN instead, if that is set. */
const char *libvirt_run_folder(void);

/*
 * The process of the running domain of that name.  0 with error: there is no such file, nobody but its owner
 * may have written it and that is neither root nor this process's user, or it holds no pid.
 */
pid_t libvirt_pid(const char *folder, const char *name, GError **error);

#endif
