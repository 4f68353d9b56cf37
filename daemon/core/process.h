/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What /proc and pidfds tell of other processes. Any thread; reads files, so not for the fault path. */
#ifndef POSTCOPYD_CORE_PROCESS_H
#define POSTCOPYD_CORE_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

/* Field 22 of /proc/PID/stat: with the pid it names a process for good. 0: there is none. */
uint64_t process_start(int pid);

/*
 * True while any thread of the process with this pid and start lives.  Its first thread may have ended
 * long before the others: only a pidfd tells when the last one has.
 */
bool process_lives(int pid, uint64_t start);

/* The same of a pidfd; false for -1. */
bool process_has_ended(int pidfd);

/*
 * A pidfd of the process at the other end of a UNIX socket: that which connected, or listened.  A kernel
 * before 6.5 cannot tell but by the pid, which may be another's already if that process has ended.
 * Negative errno.
 */
int process_open_peer(int socket);

/* True if a thread with this id belongs to that process. */
bool process_has_thread(int pid, uint32_t tid);

/*
 * Finds threads of a process by the ids they have in their own pid namespace: ret_ids[n] get those by
 * which we know them, in any order.  How many were found.
 */
uint32_t process_find_threads(int pid, const uint32_t *ids, uint32_t n, uint32_t *ret_ids);

#endif
