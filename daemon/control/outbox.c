/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/outbox.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "protocol/fdpass.h"

typedef struct Packet {
    int fds[LIMIT_FDS_PACKET]; /* dups, owned */
    gsize n_fds;
    gsize length;
    guint8 bytes[];
} Packet;

static void packet_free(gpointer data)
{
    Packet *packet = data;

    fdpass_close(packet->fds, packet->n_fds);
    g_free(packet);
}

static void clear(Outbox *outbox)
{
    event_del(outbox->writable);
    g_queue_clear_full(&outbox->packets, packet_free);
    outbox->bytes = 0;
}

static int send_first(Outbox *outbox)
{
    Packet *packet = g_queue_peek_head(&outbox->packets);
    int error = fdpass_send(outbox->fd, packet->bytes, packet->length, packet->fds, packet->n_fds);

    if (error)
        return error;
    g_queue_pop_head(&outbox->packets);
    outbox->bytes -= packet->length;
    packet_free(packet);
    return 0;
}

static void on_writable(evutil_socket_t fd, short what, void *argument)
{
    Outbox *outbox = argument;
    int error = 0;

    (void)fd;
    (void)what;
    while (!error && !outbox_is_empty(outbox))
        error = send_first(outbox);
    if (error == -EAGAIN)
        return;
    clear(outbox);
    outbox->emptied(outbox->owner);
}

void outbox_init(Outbox *outbox, struct event_base *base, int fd, void (*emptied)(gpointer owner),
                 gpointer owner)
{
    outbox->fd = fd;
    outbox->bytes = 0;
    outbox->emptied = emptied;
    outbox->owner = owner;
    g_queue_init(&outbox->packets);
    outbox->writable = event_new(base, fd, EV_WRITE | EV_PERSIST, on_writable, outbox);
}

void outbox_deinit(Outbox *outbox)
{
    clear(outbox);
    event_free(outbox->writable);
}

gboolean outbox_is_empty(const Outbox *outbox)
{
    return outbox->packets.head == NULL;
}

static int packet_dup_fds(Packet *packet, const int *fds, gsize n_fds)
{
    for (gsize i = 0; i < n_fds; i++) {
        packet->fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
        if (packet->fds[i] < 0)
            return -errno;
        packet->n_fds++;
    }
    return 0;
}

static int keep(Outbox *outbox, const ClientMessage *message, const int *fds, gsize n_fds,
                void *scratch)
{
    gssize length = n_fds > LIMIT_FDS_PACKET
                        ? -EMSGSIZE
                        : client_message_encode(message, (guint32)n_fds, scratch);
    Packet *packet;
    int error;

    if (length < 0)
        return (int)length;
    if (outbox->bytes + (gsize)length > OUTBOX_MAX) {
        clear(outbox);
        return -ENOBUFS;
    }
    packet = g_malloc(sizeof *packet + (gsize)length);
    packet->n_fds = 0;
    packet->length = (gsize)length;
    memcpy(packet->bytes, scratch, (gsize)length);
    error = packet_dup_fds(packet, fds, n_fds);
    if (error) {
        packet_free(packet);
        return error;
    }
    if (outbox_is_empty(outbox))
        event_add(outbox->writable, NULL);
    g_queue_push_tail(&outbox->packets, packet);
    outbox->bytes += packet->length;
    return 0;
}

int outbox_send(Outbox *outbox, const ClientMessage *message, const int *fds, gsize n_fds,
                void *scratch)
{
    int error;

    if (!outbox_is_empty(outbox))
        return keep(outbox, message, fds, n_fds, scratch);
    error = client_message_send(outbox->fd, message, fds, n_fds, scratch);
    return error == -EAGAIN && message->type == CLIENT_REPLY
               ? keep(outbox, message, fds, n_fds, scratch)
               : error;
}
