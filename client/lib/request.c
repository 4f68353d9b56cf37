/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/lib/request.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct Request {
    Request *next;
    uint32_t serial;
    ClientMessageType type;
    ClientMessage *message; /* NULL once the library's thread took it, with the fd, to send */
    int fd;
    bool done;
    int status;
    Reason reason;
};

struct timespec request_deadline(int timeout_ms)
{
    struct timespec deadline;

    clock_gettime(CLOCK_MONOTONIC, &deadline);
    if (timeout_ms > 0) {
        deadline.tv_sec += timeout_ms / 1000;
        deadline.tv_nsec += timeout_ms % 1000 * 1000000L;
    }
    if (deadline.tv_nsec >= 1000000000L) {
        deadline.tv_sec++;
        deadline.tv_nsec -= 1000000000L;
    }
    return deadline;
}

bool request_wait(postcopy *pc, int timeout_ms, const struct timespec *deadline)
{
    if (timeout_ms < 0)
        return pthread_cond_wait(&pc->changed, &pc->lock) == 0;
    return pthread_cond_timedwait(&pc->changed, &pc->lock, deadline) != ETIMEDOUT;
}

static void append(postcopy *pc, Request *request)
{
    Request **last = &pc->requests;

    while (*last)
        last = &(*last)->next;
    *last = request;
}

static void unlink_request(postcopy *pc, Request *request)
{
    Request **at = &pc->requests;

    while (*at != request)
        at = &(*at)->next;
    *at = request->next;
}

static void drop_message(Request *request)
{
    free(request->message);
    request->message = NULL;
    if (request->fd >= 0)
        close(request->fd);
    request->fd = -1;
}

static void finish(postcopy *pc, Request *request, int status, const char *text)
{
    request->done = true;
    request->status = reason_set(&request->reason, status, "%s", text);
    pthread_cond_broadcast(&pc->changed);
}

static int time_out(const postcopy *pc, const Request *request, Reason *ret_reason)
{
    if (pc->link != LINK_UP)
        return reason_set(ret_reason, -ETIMEDOUT, "not connected: %s", pc->link_reason.text);
    if (request->message)
        return reason_set(ret_reason, -ETIMEDOUT, "the daemon does not take messages");
    return reason_set(ret_reason, -ETIMEDOUT, "the daemon did not answer in time");
}

int request_run(postcopy *pc, RequestCall call, Reason *ret_reason)
{
    struct timespec deadline = request_deadline(call.timeout_ms);
    Request request = {
        .serial = ++pc->last_serial,
        .type = call.message->type,
        .message = call.message,
        .fd = call.fd,
    };
    int status;

    call.message->serial = request.serial;
    append(pc, &request);
    instance_wake(pc);
    while (!request.done && request_wait(pc, call.timeout_ms, &deadline))
        ;
    if (request.done) {
        *ret_reason = request.reason;
        status = request.status;
    } else {
        status = time_out(pc, &request, ret_reason);
    }
    unlink_request(pc, &request);
    drop_message(&request);
    return status;
}

/* The next one to send, its message and fd now the caller's; NULL if there is none. */
static ClientMessage *take_next(postcopy *pc, int *ret_fd)
{
    ClientMessage *message = NULL;

    pthread_mutex_lock(&pc->lock);
    for (Request *r = pc->requests; r && !message; r = r->next) {
        if (!r->message || r->done)
            continue;
        message = r->message;
        *ret_fd = r->fd;
        r->message = NULL;
        r->fd = -1;
    }
    pthread_mutex_unlock(&pc->lock);
    return message;
}

int request_send_queued(postcopy *pc)
{
    ClientMessage *message;
    int error = 0;
    int fd;

    while (!error && (message = take_next(pc, &fd))) {
        error = client_message_send(pc->socket, message, &fd, fd >= 0, pc->scratch);
        if (fd >= 0)
            close(fd);
        free(message);
    }
    return error;
}

void request_answer(postcopy *pc, const ClientMessage *message)
{
    bool has_status = message->type != CLIENT_OK;
    int status = has_status ? message->status.status : 0;

    /* An ERROR that names no error is one all the same. */
    if (status > 0 || (message->type == CLIENT_ERROR && status == 0))
        status = -EPROTO;
    pthread_mutex_lock(&pc->lock);
    for (Request *r = pc->requests; r; r = r->next)
        if (r->serial == message->serial && !r->message && !r->done)
            finish(pc, r, status, has_status ? message->status.text : "");
    pthread_mutex_unlock(&pc->lock);
}

static bool is_told_by_hello(const Request *request)
{
    return request->type == CLIENT_VCPUS || request->type == CLIENT_REGION_ADD ||
           request->type == CLIENT_REGION_REMOVE;
}

void request_fail(postcopy *pc, const char *text)
{
    for (Request *r = pc->requests; r; r = r->next) {
        if (r->done || r->message)
            continue;
        if (is_told_by_hello(r))
            finish(pc, r, 0, "");
        else
            finish(pc, r, -ECONNRESET, text);
    }
}

void request_finish_told(postcopy *pc)
{
    for (Request *r = pc->requests; r; r = r->next)
        if (!r->done && is_told_by_hello(r))
            finish(pc, r, 0, "");
}
