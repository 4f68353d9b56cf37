/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * VMs that may arrive here by QEMU's own post-copy: what whoever starts them knows of them, told by the
 * operator's request "expect", until their process ends.  Control thread.
 */
#ifndef POSTCOPYD_CONTROL_EXPECTED_H
#define POSTCOPYD_CONTROL_EXPECTED_H

#include <json-glib/json-glib.h>

#include "daemon/control/control.h"
#include "daemon/core/region.h"

typedef struct Expected {
    Control *control;
    guint64 id;
    guint8 uuid[LIMIT_UUID];
    char name[LIMIT_NAME + 1];
    int pid, pidfd;
    struct event *ended;
    gboolean has_token;
    guint8 token[LIMIT_TOKEN];    /* that the VM's metadata brought along from its source */
    char refusal[LIMIT_TEXT + 1]; /* why it cannot be assisted all the same; "" */
    RegionSet regions;            /* all ANONYMOUS: nothing of them is looked at here */
    guint64 limit;                /* bytes/s at which its memory may arrive; 0: none */
    guint32 n_vcpus;
    guint32 *vcpus;
    guint32 n_ports;
    guint16 *ports;  /* at which it listens for something else than its migration */
    gboolean asking; /* a thread looks for its source */
} Expected;

/* The request "expect"; replaces an earlier one of that uuid, or process. FALSE with a line in
 * ret_text[LIMIT_TEXT + 1]. */
gboolean expected_add(Control *control, JsonObject *request, char *ret_text);

/* The living process with this pid; NULL: nobody spoke of it. */
Expected *expected_by_pid(Control *control, int pid);

Expected *expected_by_id(Control *control, guint64 id);

/* The one of that name or uuid, its process living; NULL: none. */
Expected *expected_by_text(Control *control, const char *vm);

void expected_free(Expected *expected);

#endif
