/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/domain.h"

#include <libvirt/virterror.h>
#include <string.h>

#include "client/ctl/libvirt_monitor.h"
#include "client/operator/opt_in.h"
#include "protocol/qmp/error.h"

/* Its reasons go into our own errors. */
static void be_silent(void *user, virErrorPtr error)
{
    (void)user;
    (void)error;
}

virConnect *domain_connect(const char *uri, gboolean read_only, GError **error)
{
    g_autofree char *what = NULL;
    virConnect *connection;

    virSetErrorFunc(NULL, be_silent);
    connection = read_only ? virConnectOpenReadOnly(uri) : virConnectOpen(uri);
    if (connection)
        return connection;
    what = g_strdup_printf("cannot reach libvirt at %s (is libvirtd running? name another with "
                           "--connect URI)",
                           uri);
    libvirt_set_error(error, what);
    return NULL;
}

virDomain *domain_find(virConnect *connection, const char *name, GError **error)
{
    virDomain *domain = virDomainLookupByName(connection, name);
    g_autofree char *what = NULL;

    if (!domain && g_uuid_string_is_valid(name))
        domain = virDomainLookupByUUIDString(connection, name);
    if (domain)
        return domain;
    if (virGetLastErrorCode() == VIR_ERR_NO_DOMAIN) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                    "libvirt has no domain '%s'; virsh list --all shows those it has", name);
        return NULL;
    }
    what = g_strdup_printf("cannot find domain '%s'", name);
    libvirt_set_error(error, what);
    return NULL;
}

static gboolean write_one(virDomain *domain, gboolean enabled, unsigned affects, GError **error)
{
    g_autofree char *before =
        virDomainGetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT, OPT_IN_NAMESPACE, affects);
    g_autofree char *after = opt_in_rewrite(before, enabled);
    /* Before it fails: each of libvirt's calls forgets what the last one said. */
    g_autofree char *what = g_strdup_printf("cannot change domain '%s'", virDomainGetName(domain));

    if (virDomainSetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT, after, OPT_IN_KEY,
                             OPT_IN_NAMESPACE, affects) == 0)
        return TRUE;
    libvirt_set_error(error, what);
    return FALSE;
}

gboolean domain_opt_in(virDomain *domain, gboolean enabled, DomainParts *ret_done, GError **error)
{
    int live = virDomainIsActive(domain);
    int persistent = live < 0 ? -1 : virDomainIsPersistent(domain);

    *ret_done = (DomainParts){FALSE, FALSE};
    if (live < 0 || persistent < 0) {
        libvirt_set_error(error, "libvirt does not say whether the domain runs");
        return FALSE;
    }
    if (persistent && !write_one(domain, enabled, VIR_DOMAIN_AFFECT_CONFIG, error))
        return FALSE;
    ret_done->persistent = persistent != 0;
    if (live && !write_one(domain, enabled, VIR_DOMAIN_AFFECT_LIVE, error)) {
        if (persistent)
            g_prefix_error(error, "changed from its next start on, but not now: ");
        return FALSE;
    }
    ret_done->live = live != 0;
    return TRUE;
}
