/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whether a domain's QEMU is confined as libvirt's QEMUs usually are, on this host and on others. */
#ifndef POSTCOPYD_HOOK_LABEL_H
#define POSTCOPYD_HOOK_LABEL_H

#include <glib.h>
#include <libxml/tree.h>

/*
 * FALSE with error if the domain chooses its QEMU's user or AppArmor profile itself: such a QEMU may not be
 * allowed to make its second monitor, and would not start.
 */
gboolean label_check(const xmlNode *domain, GError **error);

#endif
