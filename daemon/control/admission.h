/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who gets in at the UNIX socket, so that no user keeps others out, nor fills the log.  Control thread.
 */
#ifndef POSTCOPYD_CONTROL_ADMISSION_H
#define POSTCOPYD_CONTROL_ADMISSION_H

#include "daemon/control/connection.h"

/* Takes the accepted socket; turns it away if there are too many. */
void admission_accept(Control *control, int fd);

/* Logs why a HELLO was refused, unless it was the same the last time. */
void admission_log_refusal(Connection *connection, const char *text);

#endif
