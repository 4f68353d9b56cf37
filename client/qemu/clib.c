/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/clib.h"

#include <dlfcn.h>
#include <stdarg.h>

/* Filled before main(); earlier callers look for themselves, and find the same. */
static ClibSyscall *next_syscall;
static ClibIoctl *next_ioctl;
static ClibMadvise *next_madvise;
static ClibFallocate *next_fallocate;

ClibSyscall *clib_syscall(void)
{
    ClibSyscall *found = __atomic_load_n(&next_syscall, __ATOMIC_RELAXED);

    if (!found) {
        found = (ClibSyscall *)dlsym(RTLD_NEXT, "syscall");
        __atomic_store_n(&next_syscall, found, __ATOMIC_RELAXED);
    }
    return found;
}

ClibIoctl *clib_ioctl(void)
{
    ClibIoctl *found = __atomic_load_n(&next_ioctl, __ATOMIC_RELAXED);

    if (!found) {
        found = (ClibIoctl *)dlsym(RTLD_NEXT, "ioctl");
        __atomic_store_n(&next_ioctl, found, __ATOMIC_RELAXED);
    }
    return found;
}

ClibMadvise *clib_madvise(void)
{
    ClibMadvise *found = __atomic_load_n(&next_madvise, __ATOMIC_RELAXED);

    if (!found) {
        found = (ClibMadvise *)dlsym(RTLD_NEXT, "madvise");
        __atomic_store_n(&next_madvise, found, __ATOMIC_RELAXED);
    }
    return found;
}

ClibFallocate *clib_fallocate(void)
{
    ClibFallocate *found = __atomic_load_n(&next_fallocate, __ATOMIC_RELAXED);

    if (!found) {
        found = (ClibFallocate *)dlsym(RTLD_NEXT, "fallocate");
        __atomic_store_n(&next_fallocate, found, __ATOMIC_RELAXED);
    }
    return found;
}

__attribute__((constructor)) static void find_all(void)
{
    clib_syscall();
    clib_ioctl();
    clib_madvise();
    clib_fallocate();
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
