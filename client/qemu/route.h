/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A userfaultfd's ioctl()s, carried out on whichever uffd the memory belongs to.
 */
#ifndef POSTCOPY_QEMU_ROUTE_H
#define POSTCOPY_QEMU_ROUTE_H

#include "client/qemu/listen.h"

/*
 * As ioctl(): the result, and errno.  UFFDIO_REGISTER of planned memory goes to the plan's uffds, and
 * what is registered there stays theirs; everything else is the native uffd's.  Any thread that holds
 * the Listen.
 */
int route_ioctl(Listen *listen, unsigned long request, void *argument);

#endif
