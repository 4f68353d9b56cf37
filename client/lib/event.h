/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From what the daemon says and the library does to what the VMM is told.
 */
#ifndef POSTCOPY_EVENT_H
#define POSTCOPY_EVENT_H

#include "client/lib/instance.h"

/* A STATE message; notifies if it is a change.  Library thread, without the lock. */
void event_from_state(postcopy *pc, const ClientMessage *message);

/* Something that the library itself knows: notifies if it is a change.  Likewise. */
void event_raise(postcopy *pc, enum postcopy_event event, const char *text);

/* True if event came, or one that comes after it or instead of it.  Under the lock. */
bool event_is_reached(const postcopy *pc, enum postcopy_event event);

#endif
