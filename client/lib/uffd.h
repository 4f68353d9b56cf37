/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The userfaultfd system calls that the client makes.  Placing pages is the daemon's.
 */
#ifndef POSTCOPY_UFFD_H
#define POSTCOPY_UFFD_H

#include <stdint.h>

#include "client/lib/reason.h"

/*
 * A new userfaultfd with thread ids in its messages and these further UFFD_FEATUREs, close-on-exec
 * and non-blocking (a blocking one polls as an error).  Made from device_fd if that is >= 0, else by
 * the system call, else by /dev/userfaultfd.  The caller's to close; or negative errno.
 */
int uffd_open(int device_fd, uint64_t features, Reason *ret_reason);

/*
 * Faults in the range wait for this uffd; mode: UFFDIO_REGISTER_MODEs.  -EBUSY: another holds a part
 * of it.
 */
int uffd_register(int uffd, const void *address, uint64_t length, uint64_t mode,
                  Reason *ret_reason);

/* Lets go of the range; who waits there goes on, and reads zeroes from what is still missing. */
void uffd_unregister(int uffd, const void *address, uint64_t length);

/* Whoever waits in the range faults again. */
void uffd_wake_range(int uffd, const void *address, uint64_t length);

#endif
