/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a QEMU needs to be our client when libvirt starts it, put into its domain's XML and taken out again.
 *
 * It stays in the XML of the domain that runs and travels on with its next migration, so it is told from
 * what others put there, replaced when it is found again, and removed where it cannot work.
 */
#ifndef POSTCOPYD_HOOK_FILTER_H
#define POSTCOPYD_HOOK_FILTER_H

#include <glib.h>
#include <libxml/tree.h>

#define FILTER_QEMU_NAMESPACE "http://libvirt.org/schemas/domain/qemu/1.0"

typedef struct FilterAdditions {
    const char *preload; /* path of our library */
    const char *socket;  /* of the daemon, for clients */
    const char *monitor; /* where QEMU is to make its second monitor */
} FilterAdditions;

/* Takes out what was added earlier; whether there was anything. */
gboolean filter_remove(xmlNode *domain);

/* Adds it anew; nothing of ours may be there. */
void filter_add(xmlNode *domain, const FilterAdditions *additions);

/* Whether the domain has our second monitor. */
gboolean filter_has_monitor(const xmlNode *domain);

#endif
