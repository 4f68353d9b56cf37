/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The system calls behind the functions that this library shows to QEMU, by nobody's help: no dynamic
 * linker, no memory, nothing but errno.  For a QEMU whose allocator maps its first memory before we know
 * the C library's functions; looking for those may allocate.  Any thread, at any time.
 */
#ifndef POSTCOPY_QEMU_BARE_H
#define POSTCOPY_QEMU_BARE_H

#include <stddef.h>
#include <sys/types.h>

/* As the C library's functions of these names. */
long bare_syscall(long number, ...);
int bare_ioctl(int fd, unsigned long request, ...);
int bare_madvise(void *address, size_t length, int advice);
int bare_fallocate(int fd, int mode, off_t offset, off_t length);

#endif
