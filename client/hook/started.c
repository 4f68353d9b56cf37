/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/hook/started.h"

#include <errno.h>

#include "client/hook/incoming.h"
#include "client/hook/time_limit.h"
#include "client/operator/daemon.h"
#include "protocol/qmp/error.h"
#include "protocol/qmp/json.h"

enum { EXPECT_SECONDS = 5, ARRIVE_SECONDS = 60, CAPABILITY_SECONDS = 10 };

/* The daemon's answer; takes what is in the report.  NULL with the errno of its refusal, if it is one. */
static JsonNode *ask(const Place *place, Incoming *incoming, const char *op, const char *mode,
                     const char *token, int *ret_refusal, GError **error)
{
    g_autoptr(Daemon) daemon = daemon_connect(place->config->socket, NULL, error);
    JsonNode *answer;

    *ret_refusal = 0;
    if (!daemon)
        return NULL;
    json_object_set_string_member(incoming->report, "mode", mode);
    json_object_set_string_member(incoming->report, "token", token);
    answer =
        daemon_call(daemon, op, g_steal_pointer(&incoming->report), -1, time_limit_left(), error);
    *ret_refusal = daemon_refusal(daemon);
    return answer;
}

/* QEMU's own post-copy: it can do without us, so nothing here stops it. */
static void expect(const Place *place, Incoming *incoming, const char *token, GError **error)
{
    JsonNode *answer;
    int refusal;

    if (!*token) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                    "the domain brought no token along: postcopyd on its source host is not "
                    "running, or has no [libvirt] uri");
        return;
    }
    answer = ask(place, incoming, "expect", "assist", token, &refusal, error);
    g_clear_pointer(&answer, json_node_unref); /* it only says yes */
}

/*
 * If memory comes by way of the daemons, QEMU's stream must leave it out.  It refuses a source and a
 * destination that differ in this, so a migration that the daemon does not know of cannot lose memory.
 * For the same reason only one that was announced here and cannot be (ECANCELED) is stopped: any other "no"
 * may be to a migration that has nothing to do with us.
 */
static gboolean arrive(const Place *place, Incoming *incoming, const char *token, GError **error)
{
    Monitor monitor = qmp_monitor(incoming->qmp);
    g_autoptr(JsonNode) answer = NULL;
    int refusal;

    time_limit_set(ARRIVE_SECONDS, 0,
                   "postcopyd: no answer in time; this migration goes without\n");
    answer = ask(place, incoming, "arrive", "direct", token, &refusal, error);
    if (!answer)
        return refusal != ECANCELED;
    if (!member_bool(node_object(answer), "armed"))
        return TRUE;
    time_limit_set(CAPABILITY_SECONDS, 1, "postcopyd: the arriving guest's QEMU does not answer\n");
    qmp_set_timeout(incoming->qmp, time_limit_left());
    return monitor_set_capability(&monitor, "x-ignore-shared", TRUE, error);
}

gboolean started_run(const Place *place, const char *token, GError **error)
{
    Incoming incoming;
    gboolean go_on = TRUE;

    time_limit_set(EXPECT_SECONDS, 0,
                   "postcopyd: no answer in time; this migration goes without\n");
    if (incoming_open(&incoming, place, error) && incoming.waits) {
        if (incoming.postcopy)
            expect(place, &incoming, token, error);
        else
            go_on = arrive(place, &incoming, token, error);
    }
    incoming_close(&incoming);
    return go_on;
}
