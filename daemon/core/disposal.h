/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Letting go of a VM's memory.  Whoever closes the last descriptor of a memory file frees all of it in that
 * call, which takes seconds for hundreds of GiB: so that is a thread's of its own, which nobody waits for.
 */
#ifndef POSTCOPYD_CORE_DISPOSAL_H
#define POSTCOPYD_CORE_DISPOSAL_H

#include "daemon/core/region.h"

/* Closes the descriptors of all regions, soon; the set is empty at once. Any thread. */
void region_set_dispose(RegionSet *set);

#endif
