/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What this host has for a domain that arrives: paths, and whether they can be used. */
#ifndef POSTCOPYD_HOOK_PLACE_H
#define POSTCOPYD_HOOK_PLACE_H

#include <sys/types.h>

#include "client/operator/host_config.h"

typedef struct Place {
    HostConfig *config;
    char *preload;    /* our library */
    char *run_folder; /* where libvirt keeps its QEMUs' pid files */
    char *name;       /* the domain's */
    char *uuid;       /* in lower case */
    char *monitor;    /* the domain's second one */
} Place;

/* FALSE with error if the uuid is none or the name cannot be one. */
gboolean place_init(Place *place, const char *name, const char *uuid, GError **error);
void place_deinit(Place *place);

/*
 * Whether a QEMU that gets our additions would start: without its library it would not be our client, and
 * without a place for its second monitor it would end.
 */
gboolean place_check(const Place *place, GError **error);

/* Removes what a QEMU left behind; a socket at which somebody listens stays. */
void place_remove_stale(const Place *place);

/*
 * Takes the right to connect from the group that QEMUs run in, which QEMU gives it.  The folder is a user's
 * who may put other things there meanwhile: nothing but a socket is touched.
 */
void place_close_to_others(const Place *place);

/* The process that libvirt started for the domain; 0 if that is not known. */
pid_t place_pid(const Place *place);

#endif
