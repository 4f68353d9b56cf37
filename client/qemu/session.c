/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/session.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/qemu/clock.h"
#include "client/qemu/dial.h"
#include "client/qemu/grant.h"
#include "client/qemu/log.h"

#define DELAY_FIRST (500 * CLOCK_MS)
#define DELAY_MAX   (8000 * CLOCK_MS)
#define PERSEVERE   (60000 * CLOCK_MS)

void session_init(Session *session, const QemuOptions *options)
{
    memset(session, 0, sizeof *session);
    session->options = *options;
    session->socket = -1;
}

void session_want(Session *session, uint64_t now)
{
    session->delay = DELAY_FIRST;
    session->ask_until = now + PERSEVERE;
    if (session->asked)
        session->again = true;
    else
        session->ask_at = now;
}

void session_content(Session *session)
{
    session->asked = session->again = false;
    session->ask_at = 0;
}

/*
 * The daemon did not find what it needs, or is not there: QEMU goes on, so it may yet.  Where it takes back what
 * it had given, that counts as if QEMU had asked anew, however long ago it did.
 */
static void ask_later(Session *session, uint64_t now)
{
    if (!session->asked) {
        session->delay = DELAY_FIRST;
        session->ask_until = now + PERSEVERE;
    }
    session->asked = false;
    session->ask_at = session->again ? now : now + session->delay;
    session->again = false;
    session->delay = session->delay * 2 < DELAY_MAX ? session->delay * 2 : DELAY_MAX;
    if (session->ask_at > session->ask_until)
        session->ask_at = 0;
}

static bool send_message(Session *session, const int *fds, size_t n_fds)
{
    int error = client_message_send(session->socket, &session->out, fds, n_fds, session->scratch);

    if (error)
        log_line("the daemon takes no message: %s", strerror(-error));
    return error == 0;
}

static ClientMessage *begin(Session *session, ClientMessageType type)
{
    session->out.type = type;
    session->out.serial = ++session->serial;
    return &session->out;
}

bool session_ask(Session *session, uint64_t now)
{
    ClientMessage *message;

    if (!session->ask_at || now < session->ask_at)
        return true;
    session->ask_at = 0;
    if (session->socket < 0) {
        int fd = dial();
        if (fd < 0) {
            log_line("no daemon to assist: %s", strerror(-fd));
            ask_later(session, now);
            return true;
        }
        session->socket = fd;
        client_channel_init(&session->channel, fd);
    }
    message = begin(session, CLIENT_ASSIST);
    memcpy(message->assist.uuid, session->options.uuid, sizeof message->assist.uuid);
    memcpy(message->assist.name, session->options.name, sizeof message->assist.name);
    session->asked = true;
    return send_message(session, NULL, 0);
}

static bool refuse(Session *session, int error, const char *text)
{
    session->out.type = CLIENT_ERROR;
    session->out.serial = session->in.serial;
    session->out.status = (ClientStatus){.status = error};
    snprintf(session->out.status.text, sizeof session->out.status.text, "%s", text);
    return send_message(session, NULL, 0);
}

/* The first attempts come before the daemon can know of the migration: said once, and as what it is. */
static void log_refusal(Session *session)
{
    const char *text = session->in.status.text;

    if (session->in.status.status != -EAGAIN) {
        log_line("the daemon does not assist: %s", text);
    } else if (strcmp(session->not_yet, text) != 0) {
        snprintf(session->not_yet, sizeof session->not_yet, "%s", text);
        log_line("the daemon does not assist yet: %s", text);
    }
}

int session_receive(Session *session, uint64_t now)
{
    int result = client_channel_receive(&session->channel, &session->in);

    if (result == -EAGAIN)
        return 0;
    if (result != 1) {
        log_line("the daemon's connection has ended: %s", result ? strerror(-result) : "closed");
        ask_later(session, now);
        return result ? result : -ECONNRESET;
    }
    switch (session->in.type) {
    case CLIENT_PLAN:
        return SESSION_PLAN;
    case CLIENT_ERROR:
        log_refusal(session);
        ask_later(session, now);
        return SESSION_REFUSED;
    case CLIENT_OK:
    case CLIENT_STATE:
        return 0;
    default:
        return refuse(session, -EOPNOTSUPP, "not to be said on this connection") ? 0 : -EPIPE;
    }
}

Plan *session_take_plan(Session *session, bool busy)
{
    bool with_device = session->in.plan.flags & CLIENT_ARM_DEVICE;
    Reason reason = {0};
    Plan *plan = NULL;

    if (busy)
        reason_set(&reason, -EBUSY, "QEMU uses another plan");
    else if (session->in.n_fds != (with_device ? 2U : 1U) ||
             session->in.plan.flags & ~CLIENT_ARM_DEVICE)
        reason_set(&reason, -EPROTO, "PLAN has not the fds that it should have");
    else
        plan = plan_new(&session->in, client_channel_take_fd(&session->channel, 0),
                        with_device ? session->channel.fds[1] : grant_known(), &reason);
    if (plan) {
        session_content(session);
        return plan;
    }
    log_line("the daemon's plan is of no use: %s", reason.text);
    refuse(session, busy ? -EBUSY : -EINVAL, reason.text);
    return NULL;
}

bool session_listen(Session *session, const Plan *plan)
{
    begin(session, CLIENT_LISTEN);
    return send_message(session, plan->uffds, plan->n_segments);
}

bool session_end(Session *session)
{
    begin(session, CLIENT_END);
    return send_message(session, NULL, 0);
}

void session_close(Session *session)
{
    if (session->socket < 0)
        return;
    client_channel_deinit(&session->channel);
    close(session->socket);
    session->socket = -1;
    session->asked = false;
}
