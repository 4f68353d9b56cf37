/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/transport/relay.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER_FIRST = 256 * 1024, BUFFER_MOST = 256 * 1024 * 1024 };

/*
 * One direction.  The buffer grows while one side writes and the other does not read: a destination that
 * loads its devices may stand still for a page until its source has written all of its own (the gate
 * opens only then), and the source must not wait for it meanwhile.
 */
typedef struct Flow {
    int from, to;
    bool ended; /* nothing more comes */
    bool shut;  /* and the other side knows */
    size_t head, tail, size;
    char *buffer;
} Flow;

static bool is_transient(int error)
{
    return error == EAGAIN || error == EINTR;
}

static bool is_empty(const Flow *flow)
{
    return flow->head == flow->tail;
}

/* Much is never moved for little room: a full buffer of the largest size is first half emptied. */
static bool may_take(const Flow *flow)
{
    return !flow->ended && (flow->tail < flow->size || flow->size < BUFFER_MOST ||
                            flow->tail - flow->head <= flow->size / 2);
}

/* Room behind the tail: by moving what is little, or by growing. 0 or -ENOMEM. */
static int make_room(Flow *flow)
{
    size_t used = flow->tail - flow->head;

    if (flow->tail < flow->size)
        return 0;
    if (used > flow->size / 2) {
        char *larger = realloc(flow->buffer, flow->size * 2);

        if (!larger)
            return -ENOMEM;
        flow->buffer = larger;
        flow->size *= 2;
        return 0;
    }
    memmove(flow->buffer, flow->buffer + flow->head, used);
    flow->head = 0;
    flow->tail = used;
    return 0;
}

static int flow_fill(Flow *flow)
{
    int error;
    ssize_t n;

    if (is_empty(flow))
        flow->head = flow->tail = 0;
    error = make_room(flow);
    if (error)
        return error;
    n = recv(flow->from, flow->buffer + flow->tail, flow->size - flow->tail, MSG_DONTWAIT);
    if (n < 0)
        return is_transient(errno) ? 0 : -errno;
    if (n == 0)
        flow->ended = true;
    flow->tail += (size_t)n;
    return 0;
}

static int flow_drain(Flow *flow, Relay *relay)
{
    ssize_t n = send(flow->to, flow->buffer + flow->head, flow->tail - flow->head,
                     MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n < 0)
        return is_transient(errno) ? 0 : -errno;
    flow->head += (size_t)n;
    atomic_fetch_add_explicit(&relay->bytes, (uint64_t)n, memory_order_relaxed);
    return 0;
}

static int flow_step(Flow *flow, Relay *relay)
{
    int error = 0;

    if (may_take(flow))
        error = flow_fill(flow);
    if (!error && !is_empty(flow))
        error = flow_drain(flow, relay);
    if (!error && is_empty(flow) && flow->ended && !flow->shut) {
        shutdown(flow->to, SHUT_WR);
        flow->shut = true;
    }
    return error;
}

static void poll_for(const Flow *flow, struct pollfd *from, struct pollfd *to)
{
    if (!is_empty(flow))
        to->events |= POLLOUT;
    if (may_take(flow))
        from->events |= POLLIN;
}

static int wait_for_either(const Flow *there, const Flow *back)
{
    struct pollfd fds[2] = {{.fd = there->from}, {.fd = there->to}};

    poll_for(there, &fds[0], &fds[1]);
    poll_for(back, &fds[1], &fds[0]);
    /* An end that waits for nothing would report its hang-up in a busy loop. */
    for (int i = 0; i < 2; i++)
        if (!fds[i].events)
            fds[i].fd = -1;
    return poll(fds, 2, 100) < 0 && errno != EINTR ? -errno : 0;
}

int relay_run(Relay *relay, int left, int right)
{
    Flow flows[2] = {{.from = left, .to = right}, {.from = right, .to = left}};
    int error = 0;

    for (int i = 0; i < 2; i++) {
        flows[i].size = BUFFER_FIRST;
        flows[i].buffer = malloc(BUFFER_FIRST);
        error = flows[i].buffer ? error : -ENOMEM;
    }
    while (!error && !atomic_load(&relay->stop) && !(flows[0].shut && flows[1].shut)) {
        error = flow_step(&flows[0], relay);
        if (!error)
            error = flow_step(&flows[1], relay);
        if (!error && !(flows[0].shut && flows[1].shut))
            error = wait_for_either(&flows[0], &flows[1]);
    }
    free(flows[0].buffer);
    free(flows[1].buffer);
    return error;
}
