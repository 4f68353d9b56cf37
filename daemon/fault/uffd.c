/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Since Linux 6.6; older headers lack it. */
struct poison_argument {
    struct uffdio_range range;
    uint64_t mode;
    int64_t updated;
};
#define POISON_REQUEST _IOWR(UFFDIO, 0x08, struct poison_argument)

uint64_t uffd_features(int device)
{
    struct uffdio_api api = {.api = UFFD_API};
    int flags = O_CLOEXEC | O_NONBLOCK;
    int uffd = device >= 0 ? ioctl(device, USERFAULTFD_IOC_NEW, flags)
                           : (int)syscall(SYS_userfaultfd, flags);

    if (uffd < 0)
        return 0;
    if (ioctl(uffd, UFFDIO_API, &api))
        api.features = 0;
    close(uffd);
    return api.features;
}

/* result: the ioctl's; placed: the field in which the kernel tells bytes done or negative errno. */
static int outcome(int result, int64_t placed, uint64_t *ret_placed)
{
    int error = errno;

    *ret_placed = placed > 0 ? (uint64_t)placed : 0;
    if (result == 0)
        return UFFD_PLACED;
    /* A partial placement is reported as EAGAIN, its cause as nothing: the next try tells it. */
    switch (error) {
    case EEXIST:
        return UFFD_PRESENT;
    case EAGAIN:
    case ENOMEM:
        return UFFD_AGAIN;
    case ESRCH:
    case ENOENT:
        return UFFD_GONE;
    default:
        return -error;
    }
}

int uffd_copy(int uffd, uint64_t address, const void *data, uint64_t length, bool wake,
              uint64_t *ret_placed)
{
    struct uffdio_copy argument = {
        .dst = address,
        .src = (uint64_t)(uintptr_t)data,
        .len = length,
        .mode = wake ? 0 : UFFDIO_COPY_MODE_DONTWAKE,
    };
    int result = ioctl(uffd, UFFDIO_COPY, &argument);

    return outcome(result, argument.copy, ret_placed);
}

int uffd_zero(int uffd, uint64_t address, uint64_t length, bool wake, uint64_t *ret_placed)
{
    struct uffdio_zeropage argument = {
        .range = {.start = address, .len = length},
        .mode = wake ? 0 : UFFDIO_ZEROPAGE_MODE_DONTWAKE,
    };
    int result = ioctl(uffd, UFFDIO_ZEROPAGE, &argument);

    return outcome(result, argument.zeropage, ret_placed);
}

int uffd_continue(int uffd, uint64_t address, uint64_t length, bool wake, uint64_t *ret_placed)
{
    struct uffdio_continue argument = {
        .range = {.start = address, .len = length},
        .mode = wake ? 0 : UFFDIO_CONTINUE_MODE_DONTWAKE,
    };
    int result = ioctl(uffd, UFFDIO_CONTINUE, &argument);

    result = outcome(result, argument.mapped, ret_placed);
    return result == -EFAULT ? UFFD_ABSENT : result;
}

int uffd_poison(int uffd, uint64_t address, uint64_t length)
{
    struct poison_argument argument = {.range = {.start = address, .len = length}};
    uint64_t placed;
    int result = ioctl(uffd, POISON_REQUEST, &argument);

    return outcome(result, argument.updated, &placed);
}

int uffd_wake(int uffd, uint64_t address, uint64_t length)
{
    struct uffdio_range range = {.start = address, .len = length};

    return ioctl(uffd, UFFDIO_WAKE, &range) ? -errno : 0;
}

ssize_t uffd_read(int uffd, struct uffd_msg *messages, size_t n)
{
    ssize_t length = read(uffd, messages, n * sizeof *messages);

    if (length < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    return length / (ssize_t)sizeof *messages;
}
