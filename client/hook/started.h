/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libvirt has started a QEMU for a domain that arrives and set it up, and sends nothing before the hook
 * has ended: the daemon hears of the guest here.
 */
#ifndef POSTCOPYD_HOOK_STARTED_H
#define POSTCOPYD_HOOK_STARTED_H

#include "client/hook/place.h"

/*
 * Tells the daemon.  FALSE with error only if the migration must not go on; whatever else goes wrong is in
 * error with TRUE: the migration goes on without us.
 */
gboolean started_run(const Place *place, const char *token, GError **error);

#endif
