/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/guest/pvh.h"

#include <stddef.h>

extern uint32_t pvh_start_info; /* entry.S */

const PvhStartInfo *pvh_info(void)
{
    const PvhStartInfo *info = (const PvhStartInfo *)(uintptr_t)pvh_start_info;

    return info && info->magic == PVH_MAGIC && info->version >= 1 ? info : NULL;
}
