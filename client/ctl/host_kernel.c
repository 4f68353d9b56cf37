/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "client/ctl/host_check.h"

/* Newer than the headers this may be built with. */
#define FEATURE_POISON (G_GUINT64_CONSTANT(1) << 14)
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

typedef struct Feature {
    guint64 bits;
    const char *id;
    HostLevel without;
    const char *use;
    const char *since;
} Feature;

static const Feature features[] = {
    {UFFD_FEATURE_MISSING_SHMEM, "uffd-shmem", HOST_FAIL, "guests with shared memory can arrive",
     "4.11"},
    {UFFD_FEATURE_MISSING_HUGETLBFS, "uffd-hugetlb", HOST_WARN, "guests with huge pages can arrive",
     "4.11"},
    {UFFD_FEATURE_MINOR_SHMEM, "uffd-minor", HOST_WARN, "memory is received in place (preallocate)",
     "5.14"},
    {UFFD_FEATURE_EVENT_REMOVE, "uffd-remove", HOST_WARN, "guests with a balloon can arrive",
     "4.11"},
    {UFFD_FEATURE_THREAD_ID, "uffd-thread", HOST_WARN, "faults are told apart by vCPU", "4.14"},
    {FEATURE_POISON, "uffd-poison", HOST_WARN,
     "a page that cannot be read any more gives the guest a memory error instead of a stop", "6.6"},
};

static int open_uffd(int device)
{
    int flags = O_CLOEXEC | O_NONBLOCK;

    if (device >= 0)
        return ioctl(device, USERFAULTFD_IOC_NEW, flags);
    return (int)syscall(SYS_userfaultfd, flags);
}

static void say_features(HostCheck *check, guint64 has)
{
    for (guint i = 0; i < G_N_ELEMENTS(features); i++) {
        const Feature *feature = &features[i];
        g_autofree char *advice = g_strdup_printf("Linux %s has it", feature->since);

        if (has & feature->bits)
            host_say(check, feature->id, HOST_OK, NULL, "%s", feature->use);
        else
            host_say(check, feature->id, feature->without, advice, "not so: %s", feature->use);
    }
}

static void check_userfaultfd(HostCheck *check, int device)
{
    struct uffdio_api api = {.api = UFFD_API};
    int uffd = open_uffd(device);

    if (uffd < 0 && geteuid() != 0 && (errno == EPERM || errno == EACCES)) {
        host_say(check, "uffd", HOST_WARN, "run this check as root",
                 "userfaultfd cannot be looked at by this user");
        return;
    }
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api)) {
        host_say(check, "uffd", HOST_FAIL, "use a kernel with CONFIG_USERFAULTFD",
                 "no userfaultfd: %s", g_strerror(errno));
    } else {
        host_say(check, "uffd", HOST_OK, NULL, "userfaultfd works, features 0x%llx",
                 (unsigned long long)api.features);
        say_features(check, api.features);
    }
    if (uffd >= 0)
        close(uffd);
}

/* The daemon passes its open device to the QEMUs that need it, so neither setting has to change. */
static void check_device(HostCheck *check, int device, int device_error)
{
    g_autofree char *text = NULL;
    gboolean everybody =
        g_file_get_contents("/proc/sys/vm/unprivileged_userfaultfd", &text, NULL, NULL) &&
        text[0] == '1';

    if (device >= 0)
        host_say(check, "device", HOST_OK, NULL,
                 "/dev/userfaultfd can be opened: the daemon passes it to QEMUs that are not root");
    else if (everybody)
        host_say(check, "device", HOST_OK, NULL,
                 "vm.unprivileged_userfaultfd is 1: QEMUs that are not root need no device");
    else if (device_error == EACCES)
        host_say(check, "device", HOST_WARN, "run this check as root",
                 "/dev/userfaultfd is not for this user; the daemon, as root, passes it to QEMUs");
    else
        host_say(check, "device", HOST_WARN,
                 "use Linux 6.1 or newer, or sysctl vm.unprivileged_userfaultfd=1, or run QEMU as "
                 "root",
                 "no /dev/userfaultfd (%s): QEMUs that are not root cannot be destinations",
                 g_strerror(device_error));
}

static void check_io_uring(HostCheck *check)
{
    struct io_uring_params params;
    int fd;

    memset(&params, 0, sizeof params);
    fd = (int)syscall(SYS_io_uring_setup, 2, &params);
    if (fd >= 0) {
        host_say(check, "io_uring", HOST_OK, NULL, "io_uring works, features 0x%x",
                 params.features);
        close(fd);
    } else if (errno == EPERM) {
        host_say(check, "io_uring", geteuid() == 0 ? HOST_FAIL : HOST_WARN,
                 "sysctl kernel.io_uring_disabled=0 (or 1, with the daemon as root)",
                 "io_uring is not allowed to this user");
    } else {
        host_say(check, "io_uring", HOST_FAIL, "use a kernel with CONFIG_IO_URING, 5.19 or newer",
                 "no io_uring: %s", g_strerror(errno));
    }
}

void host_check_kernel(HostCheck *check)
{
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    int device_error = errno;
    struct utsname name;

    uname(&name);
    host_say(check, "kernel", HOST_OK, NULL, "Linux %s on %s", name.release, name.machine);
    check_userfaultfd(check, device);
    check_device(check, device, device_error);
    if (device >= 0)
        close(device);
    check_io_uring(check);
}
