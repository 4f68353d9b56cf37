/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The monitor of a libvirt domain, by libvirt's own connection to it. */
#ifndef POSTCOPYD_CTL_LIBVIRT_MONITOR_H
#define POSTCOPYD_CTL_LIBVIRT_MONITOR_H

#include <libvirt/libvirt.h>

#include "protocol/qmp/monitor.h"

/* Valid as long as domain; asks QEMU for its version. FALSE with error: it does not answer. */
gboolean libvirt_monitor(virDomain *domain, Monitor *ret_monitor, GError **error);

/* The process that libvirt started for a domain, if all vCPUs are threads of it; 0 with error. */
int libvirt_monitor_pid(virDomain *domain, const Monitor *monitor, GError **error);

/* "what: libvirt's last error of this thread", in one line. */
void libvirt_set_error(GError **error, const char *what);

#endif
