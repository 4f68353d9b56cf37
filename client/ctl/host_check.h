/* SPDX-License-Identifier: GPL-2.0-or-later */
/* postcopyctl check: what is looked at, and what was found. */
#ifndef POSTCOPYD_CTL_HOST_CHECK_H
#define POSTCOPYD_CTL_HOST_CHECK_H

#include <json-glib/json-glib.h>

#include "client/operator/host_config.h"

typedef enum HostLevel {
    HOST_OK,
    HOST_WARN, /* works, but not all of it, or not for everybody */
    HOST_FAIL, /* something will not work */
} HostLevel;

typedef struct HostFinding {
    const char *id; /* constant, for programs */
    HostLevel level;
    char *text;
    char *advice; /* "" if there is nothing to do */
} HostFinding;

typedef struct HostCheck {
    HostConfig *config;
    const char *socket; /* of the daemon */
    const char *peer;   /* HOST[:PORT] of another daemon, NULL: none */
    const char *uri;    /* libvirt's */
    pid_t daemon;       /* its process, 0 until it answered */
    GPtrArray *findings;
} HostCheck;

/* Adds a finding; advice is NULL if there is nothing to do. */
void host_say(HostCheck *check, const char *id, HostLevel level, const char *advice,
              const char *format, ...) G_GNUC_PRINTF(5, 6);

/*
 * How much memory the daemon may lock, in bytes, by its limit or CAP_IPC_LOCK; G_MAXUINT64 for any.  FALSE: that
 * cannot be read.
 */
gboolean host_memlock(const HostCheck *check, guint64 *ret_bytes);

/* Each looks at its part; none fails, and none waits long. */
void host_check_kernel(HostCheck *check);
void host_check_daemon(HostCheck *check);
/* status: what the daemon answered; NULL: it did not. */
void host_check_rdma(HostCheck *check, JsonObject *status);
void host_check_peer(HostCheck *check);
void host_check_socket(HostCheck *check);
void host_check_libvirt(HostCheck *check);

#endif
