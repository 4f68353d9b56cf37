/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GUEST_SMP_H
#define GUEST_SMP_H

#include <stdint.h>

/*
 * Lets processors 1..n-1 run guest_main(); any more are parked.  Returns how many processors run:
 * less than n when the machine has not got that many.
 */
unsigned smp_start(unsigned n);

#endif
