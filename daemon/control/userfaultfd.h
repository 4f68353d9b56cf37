/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which of the files that clients send may be served as userfaultfds.  Control thread.
 */
#ifndef POSTCOPYD_CONTROL_USERFAULTFD_H
#define POSTCOPYD_CONTROL_USERFAULTFD_H

#include <glib.h>

/*
 * TRUE if fd is a userfaultfd that reading cannot harm this process with: anything else may block its
 * reader, or, where its owner wants to hear of forks, hand it another fd with each message.
 * events: whether it may also report what is removed from its memory (REMOVE, UNMAP).
 */
gboolean userfaultfd_may_be_served(int fd, gboolean events);

#endif
