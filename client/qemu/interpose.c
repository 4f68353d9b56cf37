/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an unmodified QEMU calls instead of the C library's functions of these names, besides mmap().
 *
 * They lie on its hottest paths (a vCPU enters its guest by ioctl()), so each looks at one number
 * first, and goes on to the C library unless it is a userfaultfd's or a discard.  In every other
 * program, and in QEMU's children, nothing else happens.  Any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client/qemu/assist.h"
#include "client/qemu/clib.h"
#include "client/qemu/discard.h"
#include "client/qemu/grant.h"
#include "client/qemu/listen.h"
#include "client/qemu/log.h"
#include "client/qemu/process.h"

#ifndef USERFAULTFD_IOC_NEW /* headers before Linux 6.1 */
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

#define EXPORTED __attribute__((visibility("default")))

static bool is_ours(void)
{
    return process_is_qemu() && process_is_owner();
}

/* QEMU has a new userfaultfd: the fd that it gets. */
static int opened(int uffd, int flags)
{
    int fd = listen_opened(uffd, flags);

    if ((flags & O_NONBLOCK) && fd == uffd)
        log_line("QEMU opened its userfaultfd, and there is no plan");
    assist_opened();
    return fd;
}

/* userfaultfd() for QEMU: by a device that the daemon lends where the kernel refuses it. */
static long open_userfaultfd(int flags)
{
    long uffd = clib_syscall()(SYS_userfaultfd, flags);
    int device;

    if (uffd < 0 && errno == EPERM) {
        device = grant_device();
        if (device >= 0)
            uffd = clib_ioctl()(device, USERFAULTFD_IOC_NEW, flags);
        if (uffd < 0)
            errno = EPERM;
    }
    return uffd < 0 ? uffd : opened((int)uffd, flags);
}

EXPORTED long syscall(long number, ...)
{
    long a, b, c, d, e, f;
    va_list list;

    va_start(list, number);
    a = va_arg(list, long);
    b = va_arg(list, long);
    c = va_arg(list, long);
    d = va_arg(list, long);
    e = va_arg(list, long);
    f = va_arg(list, long);
    va_end(list);
    if (number == SYS_userfaultfd && is_ours())
        return open_userfaultfd((int)a);
    return clib_syscall()(number, a, b, c, d, e, f);
}

static int userfaultfd_ioctl(int fd, uint32_t request, void *argument)
{
    int result;

    if (request == USERFAULTFD_IOC_NEW) {
        result = clib_ioctl()(fd, request, argument);
        return result < 0 ? result : opened(result, (int)(long)argument);
    }
    if (listen_owns(fd))
        return listen_ioctl(fd, request, argument);
    if (request == UFFDIO_WAKE)
        listen_others_wait();
    return clib_ioctl()(fd, request, argument);
}

EXPORTED int ioctl(int fd, unsigned long request, ...)
{
    va_list list;
    void *argument;

    va_start(list, request);
    argument = va_arg(list, void *);
    va_end(list);
    if (listen_places(fd, request))
        return listen_ioctl(fd, request, argument);
    if (_IOC_TYPE(request) == UFFDIO && is_ours())
        return userfaultfd_ioctl(fd, request, argument);
    return clib_ioctl()(fd, request, argument);
}

EXPORTED int madvise(void *address, size_t length, int advice)
{
    if ((advice == MADV_DONTNEED || advice == MADV_REMOVE) && discard_is_watched() && is_ours())
        discard_memory(address, length);
    return clib_madvise()(address, length, advice);
}

static int punch(int fd, int mode, off_t offset, off_t length)
{
    if ((mode & FALLOC_FL_PUNCH_HOLE) && discard_is_watched() && is_ours())
        discard_file(fd, offset, length);
    return clib_fallocate()(fd, mode, offset, length);
}

EXPORTED int fallocate(int fd, int mode, off_t offset, off_t length)
{
    return punch(fd, mode, offset, length);
}

EXPORTED int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
    return punch(fd, mode, offset, length);
}
