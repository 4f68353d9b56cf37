/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/control/userfaultfd.h"

#define REMOVALS (UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP)

/* -1: this process may not have it. */
static int make(int flags, uint64_t features)
{
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | flags);

    if (fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static void check(int flags, uint64_t features, bool events, bool expected)
{
    int fd = make(flags, features);

    if (fd < 0)
        skip();
    assert_int_equal(userfaultfd_may_be_served(fd, events), expected);
    close(fd);
}

static void those_that_report_faults_are_served(void **state)
{
    (void)state;
    check(O_NONBLOCK, 0, false, true);
    check(O_NONBLOCK, UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_MINOR_SHMEM, false, true);
    check(O_NONBLOCK, UFFD_FEATURE_THREAD_ID | REMOVALS, true, true);
}

static void events_that_nobody_heeds_are_refused(void **state)
{
    (void)state;
    check(O_NONBLOCK, UFFD_FEATURE_EVENT_REMAP, true, false);
    check(O_NONBLOCK, UFFD_FEATURE_EVENT_REMOVE, false, false);
    check(O_NONBLOCK, UFFD_FEATURE_EVENT_UNMAP, false, false);
}

static void forks_are_refused(void **state)
{
    (void)state;
    check(O_NONBLOCK, UFFD_FEATURE_EVENT_FORK, true, false);
    check(O_NONBLOCK, UFFD_FEATURE_EVENT_FORK | REMOVALS, true, false);
}

static void one_that_blocks_is_refused(void **state)
{
    (void)state;
    check(0, 0, false, false);
}

/* Its features could still be chosen, by who has another fd of it. */
static void one_without_features_yet_is_refused(void **state)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

    (void)state;
    if (fd < 0)
        skip();
    assert_false(userfaultfd_may_be_served(fd, true));
    close(fd);
}

static void other_files_are_refused(void **state)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    (void)state;
    assert_false(userfaultfd_may_be_served(fd, true));
    close(fd);
    assert_false(userfaultfd_may_be_served(fd, true));
    assert_false(userfaultfd_may_be_served(-1, true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(those_that_report_faults_are_served),
        cmocka_unit_test(events_that_nobody_heeds_are_refused),
        cmocka_unit_test(forks_are_refused),
        cmocka_unit_test(one_that_blocks_is_refused),
        cmocka_unit_test(one_without_features_yet_is_refused),
        cmocka_unit_test(other_files_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
