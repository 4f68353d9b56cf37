/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A thread of its own unplugs the last region and plugs it in again, over and over, up to 100 times a
 * second.
 */
#ifndef VMM_CHURN_H
#define VMM_CHURN_H

#include <stdint.h>

#include "tests/integration/vmm_plug.h"

typedef struct VmmChurn VmmChurn;

/* Does so once, and then goes on in its thread.  NULL if that was refused: postcopy_error() tells why. */
VmmChurn *vmm_churn_start(VmmPlug *plug);

/* Ends the thread; how often it went and came since the start, or a negative errno with which
 * the library refused one. */
int64_t vmm_churn_stop(VmmChurn *churn);

#endif
