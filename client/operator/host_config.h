/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What postcopyctl and the libvirt hook have to know of the daemon's configuration.  Read from the same
 * file; what is wrong in it is for the daemon to say (postcopyd --check).
 */
#ifndef POSTCOPYD_OPERATOR_HOST_CONFIG_H
#define POSTCOPYD_OPERATOR_HOST_CONFIG_H

#include <glib.h>

typedef struct HostConfig {
    gboolean readable; /* a file that is not there is readable, and empty */
    char *path;
    char *socket;
    char *listen;
    gboolean insecure_plaintext;
    char *libvirt_uri; /* "" if the daemon uses none */
    gboolean enable_all;
} HostConfig;

/* path NULL: the installed file. */
HostConfig *host_config_load(const char *path);
void host_config_free(HostConfig *config);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HostConfig, host_config_free)

#endif
