/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdio.h>

#include "client/ctl/command.h"
#include "client/ctl/domain.h"
#include "client/operator/host_config.h"

static void say(const char *name, gboolean enabled, const DomainParts *done)
{
    const char *when = done->live && done->persistent ? "at once, and from its next start on"
                       : done->live                   ? "at once; libvirt keeps no definition of it"
                                                      : "from its next start on; it does not run";

    printf("%s: post-copy with postcopyd is %s %s\n", name, enabled ? "enabled" : "disabled", when);
}

static gboolean run(gboolean enabled, const char *summary, int argc, char **argv, GError **error)
{
    g_autofree char *uri = NULL;
    const GOptionEntry entries[] = {
        {"connect", 'c', 0, G_OPTION_ARG_STRING, &uri,
         "libvirt's URI (that of the daemon's configuration, else " DOMAIN_URI ")", "URI"},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    g_autoptr(HostConfig) config = host_config_load(NULL);
    g_autofree char *name = NULL;
    g_autoptr(virConnect) connection = NULL;
    g_autoptr(virDomain) domain = NULL;
    DomainParts done;

    if (!command_parse("DOM", summary, entries, argc, argv, TRUE, &name, error))
        return FALSE;
    if (!uri)
        uri = g_strdup(*config->libvirt_uri ? config->libvirt_uri : DOMAIN_URI);
    connection = domain_connect(uri, FALSE, error);
    domain = connection ? domain_find(connection, name, error) : NULL;
    if (!domain || !domain_opt_in(domain, enabled, &done, error))
        return FALSE;
    say(virDomainGetName(domain), enabled, &done);
    return TRUE;
}

gboolean command_enable(const char *socket, int argc, char **argv, GError **error)
{
    (void)socket;
    return run(
        TRUE,
        "Lets a libvirt domain's post-copy migrations be served by postcopyd: its memory may\n"
        "be asked for by its destination host, and its QEMU gets our library there.",
        argc, argv, error);
}

gboolean command_disable(const char *socket, int argc, char **argv, GError **error)
{
    (void)socket;
    return run(
        FALSE,
        "Keeps postcopyd out of a libvirt domain's migrations, whatever the configuration's\n"
        "[libvirt] enable says. A migration that is under way is not touched.",
        argc, argv, error);
}
