/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A region that comes or goes while the memory is armed, as plugged memory does.
 *
 *   coming   REGION_ADD goes out; the daemon answers with ARM for that region: it is registered and
 *            ARMED hands over its uffds; OK: it is served
 *   going    REGION_REMOVE goes out; OK says that nobody at the daemon touches it any more: only then is
 *            it let go of, for whoever placed a page there meanwhile would find it gone
 *
 * One at a time.  A caller that no longer waits leaves the change to go on.  A connection that is lost
 * ends one that comes, unless it was registered already: then the next HELLO tells of it; one that goes
 * is asked for again.
 */
#ifndef POSTCOPY_CHANGE_H
#define POSTCOPY_CHANGE_H

#include "client/lib/instance.h"

/* Any thread, under the lock, which is given up meanwhile; the memory is armed.  0 or negative. */
int change_add(postcopy *pc, const struct postcopy_region *region, Reason *ret_reason);
int change_remove(postcopy *pc, const void *address, Reason *ret_reason);

/* The rest is for the library's thread, without the lock unless it says so. */

/* Sends what is to be sent.  Negative: the connection is lost. */
int change_send(postcopy *pc);

/* pc->in is ARM for one region; the answer's status.  *ret_first: of its uffds in pc->armed. */
int change_arm(postcopy *pc, int device_fd, uint32_t *ret_first, Reason *ret_reason);

/* pc->in is OK or ERROR.  False: it answers something else. */
bool change_answer(postcopy *pc);

/* Under the lock.  True while letting go of all memory has to wait for it. */
bool change_is_under_way(const postcopy *pc);

/* Under the lock: the memory is no longer armed. */
void change_cancel(postcopy *pc, const char *text);

/* Under the lock: a daemon welcomed us; the connection went. */
void change_welcomed(postcopy *pc);
void change_disconnected(postcopy *pc, const char *text);

#endif
