/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/transport/relay.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RELAY_BUFFER = 256 * 1024 };

/* One direction. */
typedef struct Flow {
    int from, to;
    bool ended; /* nothing more comes */
    bool shut;  /* and the other side knows */
    size_t head, tail;
    char buffer[RELAY_BUFFER];
} Flow;

static bool is_transient(int error)
{
    return error == EAGAIN || error == EINTR;
}

static int flow_fill(Flow *flow)
{
    ssize_t n = recv(flow->from, flow->buffer, sizeof flow->buffer, MSG_DONTWAIT);

    if (n < 0)
        return is_transient(errno) ? 0 : -errno;
    if (n == 0)
        flow->ended = true;
    flow->head = 0;
    flow->tail = (size_t)n;
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

static bool is_empty(const Flow *flow)
{
    return flow->head == flow->tail;
}

static int flow_step(Flow *flow, Relay *relay)
{
    int error = 0;

    if (is_empty(flow) && !flow->ended)
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
    else if (!flow->ended)
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
    Flow *flows = calloc(2, sizeof *flows);
    int error = flows ? 0 : -ENOMEM;

    if (flows) {
        flows[0].from = flows[1].to = left;
        flows[0].to = flows[1].from = right;
    }
    while (!error && !atomic_load(&relay->stop) && !(flows[0].shut && flows[1].shut)) {
        error = flow_step(&flows[0], relay);
        if (!error)
            error = flow_step(&flows[1], relay);
        if (!error && !(flows[0].shut && flows[1].shut))
            error = wait_for_either(&flows[0], &flows[1]);
    }
    free(flows);
    return error;
}
