/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/clib.h"

#include <dlfcn.h>
#include <stdarg.h>

#include "client/qemu/bare.h"

/*
 * Filled before main() by the one that may look for them.  Whoever comes earlier, an allocator that maps
 * its first memory, gets the system call: looking may allocate, and would come here again.
 */
static ClibSyscall *next_syscall;
static ClibIoctl *next_ioctl;
static ClibMadvise *next_madvise;
static ClibFallocate *next_fallocate;

ClibSyscall *clib_syscall(void)
{
    ClibSyscall *found = __atomic_load_n(&next_syscall, __ATOMIC_RELAXED);

    return found ? found : bare_syscall;
}

ClibIoctl *clib_ioctl(void)
{
    ClibIoctl *found = __atomic_load_n(&next_ioctl, __ATOMIC_RELAXED);

    return found ? found : bare_ioctl;
}

ClibMadvise *clib_madvise(void)
{
    ClibMadvise *found = __atomic_load_n(&next_madvise, __ATOMIC_RELAXED);

    return found ? found : bare_madvise;
}

ClibFallocate *clib_fallocate(void)
{
    ClibFallocate *found = __atomic_load_n(&next_fallocate, __ATOMIC_RELAXED);

    return found ? found : bare_fallocate;
}

__attribute__((constructor)) static void find_all(void)
{
    __atomic_store_n(&next_syscall, (ClibSyscall *)dlsym(RTLD_NEXT, "syscall"), __ATOMIC_RELAXED);
    __atomic_store_n(&next_ioctl, (ClibIoctl *)dlsym(RTLD_NEXT, "ioctl"), __ATOMIC_RELAXED);
    __atomic_store_n(&next_madvise, (ClibMadvise *)dlsym(RTLD_NEXT, "madvise"), __ATOMIC_RELAXED);
    __atomic_store_n(&next_fallocate, (ClibFallocate *)dlsym(RTLD_NEXT, "fallocate"),
                     __ATOMIC_RELAXED);
}

/* What the linker puts in the place of this library's own calls. */
long __wrap_syscall(long number, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_madvise(void *address, size_t length, int advice);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t length);

long __wrap_syscall(long number, ...)
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
    return clib_syscall()(number, a, b, c, d, e, f);
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list list;
    void *argument;

    va_start(list, request);
    argument = va_arg(list, void *);
    va_end(list);
    return clib_ioctl()(fd, request, argument);
}

int __wrap_madvise(void *address, size_t length, int advice)
{
    return clib_madvise()(address, length, advice);
}

int __wrap_fallocate(int fd, int mode, off_t offset, off_t length)
{
    return clib_fallocate()(fd, mode, offset, length);
}
