/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an unmodified QEMU calls instead of the C library's mmap(): the same system call, and then a
 * look at what was mapped.  In every other program, and in QEMU's children, the system call only.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "client/qemu/process.h"
#include "client/qemu/ram.h"
#include "client/qemu/watcher.h"

_Static_assert(sizeof(void *) == 8 && sizeof(off_t) == 8, "for 64-bit hosts");

#define EXPORTED __attribute__((visibility("default")))

enum { LOOK_AT_MIN = 1 << 20 };

static bool may_be_ram(size_t length, int protection, int flags, int fd)
{
    if (!(protection & PROT_WRITE) || length < LOOK_AT_MIN)
        return false;
    return flags & MAP_SHARED ? fd >= 0 : (flags & MAP_FIXED) != 0;
}

static void *map(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    void *mapped = (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
    int error = errno;

    if (mapped != MAP_FAILED && may_be_ram(length, protection, flags, fd) && process_is_qemu() &&
        process_is_owner() && ram_note(mapped, length, flags, fd, offset))
        watcher_start();
    errno = error;
    return mapped;
}

EXPORTED void *mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    return map(address, length, protection, flags, fd, offset);
}

EXPORTED void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    return map(address, length, protection, flags, fd, offset);
}
