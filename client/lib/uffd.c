/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/lib/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef USERFAULTFD_IOC_NEW /* headers before Linux 6.1 */
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

static int create(int device_fd)
{
    int flags = O_CLOEXEC | O_NONBLOCK;
    int device, uffd, error;

    if (device_fd >= 0)
        return ioctl(device_fd, USERFAULTFD_IOC_NEW, flags);
    uffd = (int)syscall(SYS_userfaultfd, flags);
    if (uffd >= 0)
        return uffd;

    error = errno;
    device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device >= 0) {
        uffd = ioctl(device, USERFAULTFD_IOC_NEW, flags);
        error = errno;
        close(device);
    }
    errno = error;
    return uffd;
}

int uffd_open(int device_fd, uint64_t features, Reason *ret_reason)
{
    struct uffdio_api api = {
        .api = UFFD_API,
        .features = UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_MISSING_SHMEM |
                    UFFD_FEATURE_MISSING_HUGETLBFS | features,
    };
    int uffd = create(device_fd);
    int error = -errno;

    if (uffd < 0)
        return reason_set(ret_reason, error, "userfaultfd is not to be had: %s", strerror(-error));
    if (ioctl(uffd, UFFDIO_API, &api) < 0) {
        error = -errno;
        close(uffd);
        return reason_set(ret_reason, error, "this kernel's userfaultfd lacks a feature: %s",
                          strerror(-error));
    }
    return uffd;
}

int uffd_register(int uffd, const void *address, uint64_t length, uint64_t mode, Reason *ret_reason)
{
    struct uffdio_register registration = {
        .range = {.start = (uintptr_t)address, .len = length},
        .mode = mode,
    };

    if (ioctl(uffd, UFFDIO_REGISTER, &registration) < 0)
        return reason_set(ret_reason, -errno, "cannot register the memory at %p: %s", address,
                          errno == EBUSY ? "another userfaultfd holds it" : strerror(errno));
    if (!(registration.ioctls & (UINT64_C(1) << _UFFDIO_COPY)))
        return reason_set(ret_reason, -EOPNOTSUPP, "pages cannot be placed in the memory at %p",
                          address);
    return 0;
}

void uffd_unregister(int uffd, const void *address, uint64_t length)
{
    struct uffdio_range range = {.start = (uintptr_t)address, .len = length};

    /* It fails only where the memory was unmapped, and then nobody waits there. */
    (void)ioctl(uffd, UFFDIO_UNREGISTER, &range);
    /*
     * The kernel wakes before it takes the mapping's own lock: a fault that holds that lock meanwhile
     * queues behind the wake, and nobody would come for it any more.
     */
    uffd_wake_range(uffd, address, length);
}

void uffd_wake_range(int uffd, const void *address, uint64_t length)
{
    struct uffdio_range range = {.start = (uintptr_t)address, .len = length};

    (void)ioctl(uffd, UFFDIO_WAKE, &range);
}
