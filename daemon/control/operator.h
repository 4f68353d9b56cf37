/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The operator's requests, JSON in and out (docs/OPERATOR.md). Control thread. */
#ifndef POSTCOPYD_CONTROL_OPERATOR_H
#define POSTCOPYD_CONTROL_OPERATOR_H

#include <json-glib/json-glib.h>

#include "daemon/control/connection.h"

/* Handles control->message, an OPERATOR; fd (taken) came with it, or -1. */
void operator_request(Connection *connection, int fd);

/* Sends an answer (taken), in parts if it is long. */
void operator_reply(Connection *connection, guint32 serial, JsonNode *node);

/* {"error", "errno"} */
void operator_reply_error(Connection *connection, guint32 serial, int status, const char *text);

#endif
