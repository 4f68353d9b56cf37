/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/bare.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <sys/syscall.h>

enum { ERRORS = 4095 }; /* what the kernel returns from -ERRORS on is an error */

#if defined(__x86_64__)

static long enter(long number, long a, long b, long c, long d, long e, long f)
{
    register long fourth __asm__("r10") = d;
    register long fifth __asm__("r8") = e;
    register long sixth __asm__("r9") = f;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth), "r"(sixth)
                     : "rcx", "r11", "memory");
    return result;
}

#elif defined(__aarch64__)

static long enter(long number, long a, long b, long c, long d, long e, long f)
{
    register long result __asm__("x0") = a;
    register long second __asm__("x1") = b;
    register long third __asm__("x2") = c;
    register long fourth __asm__("x3") = d;
    register long fifth __asm__("x4") = e;
    register long sixth __asm__("x5") = f;
    register long which __asm__("x8") = number;

    __asm__ volatile("svc #0"
                     : "+r"(result)
                     : "r"(which), "r"(second), "r"(third), "r"(fourth), "r"(fifth), "r"(sixth)
                     : "memory");
    return result;
}

#else /* the C library's, which is looked for: well with allocators that need nothing of us */

static long enter(long number, long a, long b, long c, long d, long e, long f)
{
    long (*found)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    long result = found(number, a, b, c, d, e, f);

    return result == -1 ? -errno : result;
}

#endif

static long told(long result)
{
    if (result < 0 && result >= -ERRORS) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

long bare_syscall(long number, ...)
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
    return told(enter(number, a, b, c, d, e, f));
}

int bare_ioctl(int fd, unsigned long request, ...)
{
    va_list list;
    void *argument;

    va_start(list, request);
    argument = va_arg(list, void *);
    va_end(list);
    return (int)told(enter(SYS_ioctl, fd, (long)request, (long)argument, 0, 0, 0));
}

int bare_madvise(void *address, size_t length, int advice)
{
    return (int)told(enter(SYS_madvise, (long)address, (long)length, advice, 0, 0, 0));
}

int bare_fallocate(int fd, int mode, off_t offset, off_t length)
{
    return (int)told(enter(SYS_fallocate, fd, mode, offset, length, 0, 0));
}
