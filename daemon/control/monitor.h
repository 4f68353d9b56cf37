/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rule 1: the daemon itself makes sure that a QEMU's guest has stopped, by asking its monitor on a
 * connection it was handed.  Blocks for at most a few seconds; not for the control thread.
 */
#ifndef POSTCOPYD_CONTROL_MONITOR_H
#define POSTCOPYD_CONTROL_MONITOR_H

#include <stdint.h>

#include "protocol/limits.h"

/* Thread ids of vCPUs in the pid namespace of their process. */
typedef struct MonitorVcpus {
    uint32_t n;
    uint32_t tids[LIMIT_VCPUS];
} MonitorVcpus;

/*
 * fd: a QMP connection past qmp_capabilities, that nobody else reads meanwhile; stays the caller's.
 * It must belong to process pid.  0 if the guest is stopped and cannot run by itself, with its vCPUs
 * (none if the monitor does not tell), or negative errno with a line in ret_text[LIMIT_TEXT + 1].
 */
int monitor_check_stopped(int fd, int pid, MonitorVcpus *ret_vcpus, char *ret_text);

#endif
