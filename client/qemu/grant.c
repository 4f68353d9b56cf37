/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/grant.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/qemu/clock.h"
#include "client/qemu/dial.h"
#include "client/qemu/log.h"
#include "protocol/client.h"

enum { WAIT_MS = 1000, SILENCE_MS = 30000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int device = -1;
static uint64_t not_before; /* CLOCK_MONOTONIC in ns, under the lock */

typedef struct Asking {
    ClientChannel channel;
    ClientMessage message;
    uint8_t scratch[CLIENT_PACKET_MAX];
} Asking;

/* 1 a message came; 0 end of connection; or negative errno, -ETIMEDOUT among them. */
static int await_answer(Asking *asking, uint64_t deadline)
{
    struct pollfd readable = {.fd = asking->channel.socket, .events = POLLIN};
    int result;

    while ((result = client_channel_receive(&asking->channel, &asking->message)) == -EAGAIN) {
        uint64_t now = clock_ns();
        if (now >= deadline)
            return -ETIMEDOUT;
        poll(&readable, 1, (int)((deadline - now) / CLOCK_MS) + 1);
    }
    return result;
}

/* The device's fd, or negative errno. */
static int ask(Asking *asking, int socket)
{
    struct stat st;
    int fd, result;

    client_channel_init(&asking->channel, socket);
    asking->message.type = CLIENT_DEVICE;
    asking->message.serial = 1;
    result = client_message_send(socket, &asking->message, NULL, 0, asking->scratch);
    if (result)
        return result;
    result = await_answer(asking, clock_ns() + WAIT_MS * CLOCK_MS);
    if (result == 1 && asking->message.type == CLIENT_ERROR)
        log_line("the daemon lends no userfaultfd: %s", asking->message.status.text);
    if (result != 1)
        return result ? result : -ECONNRESET;
    fd = asking->message.type == CLIENT_DEVICE ? client_channel_take_fd(&asking->channel, 0) : -1;
    if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode))) {
        close(fd);
        fd = -1;
    }
    return fd < 0 ? -EPERM : fd;
}

static int ask_once(void)
{
    Asking *asking = calloc(1, sizeof *asking);
    int socket = asking ? dial() : -ENOMEM;
    int result = socket;

    if (socket >= 0) {
        result = ask(asking, socket);
        client_channel_deinit(&asking->channel);
        close(socket);
    }
    free(asking);
    return result;
}

int grant_device(void)
{
    int fd;

    pthread_mutex_lock(&lock);
    if (device < 0 && clock_ns() >= not_before) {
        int result = ask_once();
        log_line("/dev/userfaultfd from the daemon: %s",
                 result < 0 ? strerror(-result) : "granted");
        if (result >= 0)
            __atomic_store_n(&device, result, __ATOMIC_RELEASE);
        else if (result == -ETIMEDOUT)
            not_before = clock_ns() + SILENCE_MS * CLOCK_MS;
    }
    fd = device;
    pthread_mutex_unlock(&lock);
    return fd;
}

int grant_known(void)
{
    return __atomic_load_n(&device, __ATOMIC_ACQUIRE);
}
