/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/lib/stale.h"

#include <errno.h>

#include "client/lib/mapping.h"

int stale_check(const Regions *regions, Reason *ret_reason)
{
    int error = 0;

    for (size_t i = 0; !error && i < regions->n; i++)
        if (regions->list[i].absent)
            error =
                reason_set(ret_reason, -EINVAL, "a region is absent: a source has all it names");
        else
            error = mapping_check(&regions->list[i], ret_reason);
    return error;
}

bool stale_drop(Regions *regions)
{
    bool dropped = false;
    Reason reason;

    for (size_t i = regions->n; i-- > 0;)
        if (!regions->list[i].absent && mapping_check(&regions->list[i], &reason) == -ESTALE) {
            regions_remove(regions, i);
            dropped = true;
        }
    return dropped;
}
