/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The control thread's side of libvirt (qemu/agent.h). Control thread. */
#ifndef POSTCOPYD_CONTROL_DOMAINS_H
#define POSTCOPYD_CONTROL_DOMAINS_H

#include "daemon/control/control.h"

/* Connects to libvirt, if the configuration names one. */
void domains_start(Control *control);

/* At the end of the process: within about two seconds, whatever libvirt does. */
void domains_stop(Control *control);

/* Whether a VM with this uuid comes or goes through us now. */
gboolean domains_is_moving(const Control *control, const guint8 *uuid);

#endif
