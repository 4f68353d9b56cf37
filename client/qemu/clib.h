/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The C library's own functions behind those that interpose.c exports under their names.
 *
 * They are found by the dynamic linker instead of being made of bare system calls: then the other
 * arguments, errno, and whatever else is preloaded stay as they are.  Before that could be done it is the
 * bare system calls after all (bare.h).  Whatever in this library calls
 * one of them by its plain name gets these as well (the linker's --wrap), so nothing of ours is ever
 * taken for QEMU's doing.  Any thread; no locks.
 */
#ifndef POSTCOPY_QEMU_CLIB_H
#define POSTCOPY_QEMU_CLIB_H

#include <stddef.h>
#include <sys/types.h>

typedef long ClibSyscall(long number, ...);
typedef int ClibIoctl(int fd, unsigned long request, ...);
typedef int ClibMadvise(void *address, size_t length, int advice);
typedef int ClibFallocate(int fd, int mode, off_t offset, off_t length);

ClibSyscall *clib_syscall(void);
ClibIoctl *clib_ioctl(void);
ClibMadvise *clib_madvise(void);
ClibFallocate *clib_fallocate(void);

#endif
