/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Notices when a sealed source runs again behind our back: its vCPU threads use CPU time.  A stopped
 * guest's vCPU threads sleep, but for a moment's work while QEMU saves the device state.
 */
#ifndef POSTCOPYD_SOURCE_WATCH_H
#define POSTCOPYD_SOURCE_WATCH_H

#include <stdbool.h>
#include <stdint.h>

/* CPU time of these threads so far, in ns; threads that are gone count as nothing. Any thread. */
uint64_t watch_cpu_ns(int pid, const uint32_t *tids, uint32_t n);

/* True if so much more than at the seal means that the guest ran. */
bool watch_means_running(uint64_t at_seal_ns, uint64_t now_ns);

#endif
