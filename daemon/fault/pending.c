/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/pending.h"

void pending_add(Pending *pending, const PendingFault *fault)
{
    for (unsigned i = 0; i < pending->n; i++)
        if (pending->faults[i].page == fault->page && pending->faults[i].region == fault->region)
            return;
    if (pending->n < PENDING_MAX)
        pending->faults[pending->n++] = *fault;
}

void pending_prune(Pending *pending, bool (*is_resolved)(void *owner, PendingFault *fault),
                   void *owner)
{
    unsigned n = 0;

    for (unsigned i = 0; i < pending->n; i++)
        if (!is_resolved(owner, &pending->faults[i]))
            pending->faults[n++] = pending->faults[i];
    pending->n = n;
}
