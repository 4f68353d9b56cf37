/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the preload does before it knows the C library's functions: its constructor has not run while ours,
 * of a higher priority, does.  In there the dynamic linker may not be asked, as that may allocate.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/qemu/clib.h"

enum { PAGE = 4096 };

static bool is_early;
static unsigned early_lookups, lookups;

/* What the linker puts in the place of dlsym() (--wrap). */
void *__wrap_dlsym(void *handle, const char *name);
void *__real_dlsym(void *handle, const char *name);

void *__wrap_dlsym(void *handle, const char *name)
{
    early_lookups += is_early;
    lookups++;
    return __real_dlsym(handle, name);
}

typedef struct Found {
    long mapped, read_back, bad, bad_errno;
    int ioctl_result, available, ioctl_errno, madvised, byte_after, bad_madvise, madvise_errno;
    int allocated, bad_allocate, allocate_errno;
    off_t size;
} Found;

static Found early;

/* All of it by the functions as they are at that time. */
static void try_all(Found *found)
{
    int ends[2], fd = memfd_create("early", MFD_CLOEXEC);
    struct stat status;
    int closed;
    volatile uint8_t *bytes;

    found->allocated = clib_fallocate()(fd, 0, 0, 3L * PAGE);
    found->size = fstat(fd, &status) == 0 ? status.st_size : -1;
    found->bad_allocate = clib_fallocate()(-1, 0, 0, PAGE);
    found->allocate_errno = errno;
    /* All six arguments matter: the third page of the file. */
    if (pwrite(fd, "x", 1, 2L * PAGE) != 1)
        return;
    found->mapped = clib_syscall()(SYS_mmap, 0L, (long)PAGE, (long)(PROT_READ | PROT_WRITE),
                                   (long)MAP_PRIVATE, (long)fd, 2L * PAGE);
    bytes = (volatile uint8_t *)found->mapped; /* NOLINT(performance-no-int-to-ptr) */
    found->read_back = bytes[0];
    bytes[0] = 'y';
    found->madvised = clib_madvise()((void *)bytes, PAGE, MADV_DONTNEED);
    found->byte_after = bytes[0];
    found->bad_madvise = clib_madvise()((void *)(bytes + 1), PAGE, MADV_DONTNEED);
    found->madvise_errno = errno;
    munmap((void *)bytes, PAGE);
    if (pipe(ends) < 0 || write(ends[1], "abc", 3) != 3)
        return;
    found->ioctl_result = clib_ioctl()(ends[0], FIONREAD, &found->available);
    close(ends[0]);
    close(ends[1]);
    close(fd);
    clib_ioctl()(-1, FIONREAD, &closed);
    found->ioctl_errno = errno;
    found->bad = clib_syscall()(SYS_close, -1L);
    found->bad_errno = errno;
}

__attribute__((constructor(101))) static void before_it(void)
{
    is_early = true;
    try_all(&early);
    is_early = false;
}

static void check(const Found *found)
{
    assert_true(found->mapped > 0);
    assert_int_equal(found->read_back, 'x');
    assert_int_equal(found->madvised, 0);
    assert_int_equal(found->byte_after, 'x');
    assert_int_equal(found->bad_madvise, -1);
    assert_int_equal(found->madvise_errno, EINVAL);
    assert_int_equal(found->ioctl_result, 0);
    assert_int_equal(found->available, 3);
    assert_int_equal(found->ioctl_errno, EBADF);
    assert_int_equal(found->allocated, 0);
    assert_int_equal(found->size, 3 * PAGE);
    assert_int_equal(found->bad_allocate, -1);
    assert_int_equal(found->allocate_errno, EBADF);
    assert_int_equal(found->bad, -1);
    assert_int_equal(found->bad_errno, EBADF);
}

static void nothing_is_looked_up_before_the_constructor(void **state)
{
    (void)state;
    assert_int_equal(early_lookups, 0);
    check(&early);
}

static void afterwards_they_are_the_c_librarys(void **state)
{
    Found late = {0};

    (void)state;
    assert_int_equal(lookups, 4);
    try_all(&late);
    check(&late);
    assert_ptr_equal((void *)clib_syscall(), __real_dlsym(RTLD_NEXT, "syscall"));
    assert_ptr_equal((void *)clib_ioctl(), __real_dlsym(RTLD_NEXT, "ioctl"));
    assert_ptr_equal((void *)clib_madvise(), __real_dlsym(RTLD_NEXT, "madvise"));
    assert_ptr_equal((void *)clib_fallocate(), __real_dlsym(RTLD_NEXT, "fallocate"));
    assert_int_equal(lookups, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_looked_up_before_the_constructor),
        cmocka_unit_test(afterwards_they_are_the_c_librarys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
