/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tests' VMM as one whose memory is plugged and unplugged: a thread of its own adds a region and
 * removes it again, over and over, up to 1000 times a second.
 */
#ifndef VMM_CHURN_H
#define VMM_CHURN_H

#include <stdint.h>

#include "client/lib/postcopy.h"

typedef struct VmmChurn VmmChurn;

/* Adds and removes a region of so many bytes once, and then goes on in its thread.  NULL if that was
 * refused: postcopy_error() tells why. */
VmmChurn *vmm_churn_start(postcopy *pc, uint64_t length);

/* Ends the thread; how many regions came and went since the start, or a negative errno with which
 * the library refused one. */
int64_t vmm_churn_stop(VmmChurn *churn);

#endif
