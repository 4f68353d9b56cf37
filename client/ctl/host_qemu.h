/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The QEMUs of this host, and what their versions can do. */
#ifndef POSTCOPYD_CTL_HOST_QEMU_H
#define POSTCOPYD_CTL_HOST_QEMU_H

#include "client/ctl/host_check.h"

/* The version in what "qemu --version" prints, major * 1000 + minor; 0 if there is none. */
int host_qemu_version(const char *text);

void host_check_qemu(HostCheck *check);

#endif
