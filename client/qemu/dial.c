/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/dial.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/lib/postcopy.h"

int dial(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("POSTCOPY_SOCKET");
    int fd, error;

    if (!path || !*path)
        path = POSTCOPY_DEFAULT_SOCKET;
    if (strlen(path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    do
        error = connect(fd, (const struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
    while (error == -EINTR);
    if (error) {
        close(fd);
        return error;
    }
    return fd;
}
