/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The only userfaultfd ioctls of the daemon.  Each places at most what was asked and says how far it
 * came; what to make of an outcome is placement.c's business.  Any thread; no allocation, no lock.
 *
 * Kernel behaviour relied upon (man 2 ioctl_userfaultfd; measured on Linux 6.1 and 6.18): the source
 * of COPY need not be aligned; a COPY of several pages stops at the first that is present and
 * reports the bytes before it; EEXIST wakes nobody.
 */
#ifndef POSTCOPYD_FAULT_UFFD_H
#define POSTCOPYD_FAULT_UFFD_H

#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef enum UffdOutcome {
    UFFD_PLACED = 0, /* all of it */
    UFFD_PRESENT,    /* stopped at a page that is there already (EEXIST) */
    UFFD_AGAIN,  /* stopped: the address space is changing (EAGAIN) or memory is short (ENOMEM) */
    UFFD_ABSENT, /* CONTINUE: there is no such page in the file (EFAULT) */
    UFFD_GONE,   /* the client's memory or process is gone (ESRCH, ENOENT) */
} UffdOutcome;

/* What this kernel's userfaultfds can do (UFFD_FEATURE_*); 0 if none can be made. device: an open
 * /dev/userfaultfd, or -1. */
uint64_t uffd_features(int device);

/* Each returns an outcome, or negative errno; *ret_placed is how many bytes were placed before. */
int uffd_copy(int uffd, uint64_t address, const void *data, uint64_t length, bool wake,
              uint64_t *ret_placed);
int uffd_zero(int uffd, uint64_t address, uint64_t length, bool wake, uint64_t *ret_placed);
int uffd_continue(int uffd, uint64_t address, uint64_t length, bool wake, uint64_t *ret_placed);

/* Makes a page answer with a memory error from now on; Linux 6.6. An outcome or negative errno. */
int uffd_poison(int uffd, uint64_t address, uint64_t length);

/* Wakes whoever waits in the range. 0 or negative errno. */
int uffd_wake(int uffd, uint64_t address, uint64_t length);

/* Reads up to n messages without blocking: how many (0: none there), or negative errno. */
ssize_t uffd_read(int uffd, struct uffd_msg *messages, size_t n);

#endif
