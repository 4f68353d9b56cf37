/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "protocol/fdpass.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "protocol/limits.h"

typedef union FdControl {
    char bytes[CMSG_SPACE(sizeof(int) * LIMIT_FDS_PACKET)];
    struct cmsghdr align;
} FdControl;

void fdpass_close(int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
}

int fdpass_send(int socket, const void *data, size_t length, const int *fds, size_t n_fds)
{
    struct iovec iov = {.iov_base = (void *)data, .iov_len = length};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    FdControl control;
    ssize_t sent;

    if (n_fds > LIMIT_FDS_PACKET)
        return -EINVAL;
    if (n_fds) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
        memcpy(CMSG_DATA(header), fds, sizeof(int) * n_fds);
    }
    do
        sent = sendmsg(socket, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return -errno;
    return (size_t)sent == length ? 0 : -EIO;
}

/* Takes every fd of the message; those beyond max_fds are closed.  False if there were such. */
static bool take_fds(struct msghdr *message, int *ret_fds, size_t max_fds, size_t *ret_n_fds)
{
    bool all = true;

    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header;
         header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
            if (*ret_n_fds < max_fds) {
                ret_fds[(*ret_n_fds)++] = fd;
            } else {
                close(fd);
                all = false;
            }
        }
    }
    return all;
}

ssize_t fdpass_receive(int socket, void *data, size_t size, int *ret_fds, size_t max_fds,
                       size_t *ret_n_fds)
{
    struct iovec iov = {.iov_base = data, .iov_len = size};
    FdControl control;
    struct msghdr message = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes,
    };
    ssize_t received;

    *ret_n_fds = 0;
    do
        received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (received < 0 && errno == EINTR);
    if (received < 0)
        return -errno;
    if (!take_fds(&message, ret_fds, max_fds, ret_n_fds) ||
        (message.msg_flags & (MSG_CTRUNC | MSG_TRUNC))) {
        fdpass_close(ret_fds, *ret_n_fds);
        *ret_n_fds = 0;
        return -EMSGSIZE;
    }
    return received;
}
