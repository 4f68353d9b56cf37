/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/departure_relay.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/core/log.h"

enum { RELAY_STEP_MS = 100 };

int departure_relay_listen(const char *path, uid_t uid)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd, error;

    if (strlen(path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    unlink(path);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && chmod(path, 0600) == 0 &&
        chown(path, uid, (gid_t)-1) == 0 && listen(fd, 1) == 0)
        return fd;
    error = -errno;
    close(fd);
    return error;
}

/* The QEMU's connection, or negative errno. Anybody else is turned away, and where the channel ended
 * another one may have taken its place already. */
static int accept_qemu(Export *export, int channel)
{
    struct pollfd fds[2] = {{.fd = export->relay_listener, .events = POLLIN},
                            {.fd = channel, .events = POLLRDHUP}};

    while (!atomic_load(&export->relay.stop) && !atomic_load(&export->closed)) {
        struct ucred peer;
        socklen_t length = sizeof peer;
        int fd;

        if (poll(fds, 2, RELAY_STEP_MS) <= 0)
            continue;
        if (fds[1].revents)
            return -ECONNRESET;
        fd = accept4(export->relay_listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            return -errno;
        if (fd < 0)
            continue;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
            peer.pid == export->client_pid)
            return fd;
        log_warning("%s: process %d is not the VM's: turned away from its relay socket",
                    export->name, (int)peer.pid);
        close(fd);
    }
    return -ECANCELED;
}

void departure_relay_run(Export *export, int channel)
{
    int qemu = export->relay_listener >= 0 ? accept_qemu(export, channel) : -ENOTCONN;

    if (qemu < 0)
        return;
    relay_run(&export->relay, qemu, channel);
    close(qemu);
}
