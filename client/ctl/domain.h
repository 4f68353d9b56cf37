/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libvirt's domains, as far as operators name them here.  Calls block until libvirt answers. */
#ifndef POSTCOPYD_CTL_DOMAIN_H
#define POSTCOPYD_CTL_DOMAIN_H

#include <glib.h>
#include <libvirt/libvirt.h>

#define DOMAIN_URI "qemu:///system"

G_DEFINE_AUTOPTR_CLEANUP_FUNC(virConnect, virConnectClose)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virDomain, virDomainFree)

/* NULL with one line in error; libvirt itself prints nothing. */
virConnect *domain_connect(const char *uri, gboolean read_only, GError **error);

/* The domain of this name or uuid. */
virDomain *domain_find(virConnect *connection, const char *name, GError **error);

/* Which of a domain's descriptions something was done to. */
typedef struct DomainParts {
    gboolean live;       /* of the guest that runs */
    gboolean persistent; /* from its next start on */
} DomainParts;

/* Writes into the domain's metadata whether it takes part; a token that is there stays. */
gboolean domain_opt_in(virDomain *domain, gboolean enabled, DomainParts *ret_done, GError **error);

#endif
