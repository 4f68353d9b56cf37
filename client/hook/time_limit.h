/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libvirt waits for its hook with the domain locked, and QEMU is not to be trusted with how long that is:
 * whatever call the hook hangs in, the process ends when its time is up.
 */
#ifndef POSTCOPYD_HOOK_TIME_LIMIT_H
#define POSTCOPYD_HOOK_TIME_LIMIT_H

#include <glib.h>

/*
 * From now on so many seconds, instead of any earlier limit; then the process ends with this exit status,
 * and with this line (which has to stay) on stderr.
 */
void time_limit_set(guint seconds, int status, const char *line);

/* From now on as long as it takes. */
void time_limit_end(void);

/* What is left, in milliseconds; less by a little, so that a wait that fails in time can still be told. */
gint64 time_limit_left(void);

#endif
