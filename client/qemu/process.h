/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the process that we were loaded into tells of itself in /proc.
 */
#ifndef POSTCOPY_QEMU_PROCESS_H
#define POSTCOPY_QEMU_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* True in QEMU's system emulator.  Any thread, at any time, also before constructors ran. */
bool process_is_qemu(void);

/*
 * A child that QEMU forked may find our locks held by threads it does not have, so only the process
 * that asks first, when it maps its RAM, counts.  (-daemonize forks before that.)  Any thread.
 */
bool process_is_owner(void);

typedef struct QemuOptions {
    char name[256];   /* POSTCOPY_NAME, else of -name, else "" */
    uint8_t uuid[16]; /* POSTCOPY_UUID, else of -uuid, else zero */
    bool incoming;
    bool vhost_user;
    bool gives_back; /* a balloon or the like: parts of its memory may be discarded */
} QemuOptions;

/* From the environment and the command line.  False if /proc cannot be read. */
bool process_options(QemuOptions *ret_options);

/* The thread ids of the vCPUs in vCPU order, at most max.  0 unless QEMU names its threads. */
size_t process_vcpus(uint32_t *ret_tids, size_t max);

/* True if a vCPU has used so much processor time that its guest must have run. */
bool process_vcpus_have_run(const uint32_t *tids, size_t n);

/* True if a VFIO device is open: it pins memory, and then no page of it can be missing. */
bool process_has_vfio(void);

#endif
