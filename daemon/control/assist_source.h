/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finding the source of a VM that arrives by QEMU's own migration: where its connection comes from, and
 * what the daemon there says.  A thread of its own for each, which reads /proc and waits for the network.
 */
#ifndef POSTCOPYD_CONTROL_ASSIST_SOURCE_H
#define POSTCOPYD_CONTROL_ASSIST_SOURCE_H

#include "daemon/control/expected.h"

typedef struct AssistSource {
    Control *control;
    guint64 expected; /* the id of the Expected that it is for */
    int pid;
    guint8 uuid[LIMIT_UUID];
    char name[LIMIT_NAME + 1];
    guint8 token[LIMIT_TOKEN];      /* of the VM; then that of the export */
    int error;                      /* 0, or negative errno with text */
    char text[LIMIT_TEXT + 1];      /* why it cannot be */
    char source[LIMIT_ADDRESS + 1]; /* ADDRESS:PORT of the daemon to attach to */
    gboolean ahead;                 /* memory may be fetched ahead of QEMU's own stream */
} AssistSource;

/* done(control, AssistSource *), which frees it by g_free(), runs on the control thread. FALSE: no thread
 * could be started. */
gboolean assist_source_find(const Expected *expected, ControlFunction done);

#endif
