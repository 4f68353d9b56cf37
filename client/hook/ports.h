/* SPDX-License-Identifier: GPL-2.0-or-later */
/* At which TCP ports a process listens, as /proc tells. */
#ifndef POSTCOPYD_HOOK_PORTS_H
#define POSTCOPYD_HOOK_PORTS_H

#include <json-glib/json-glib.h>
#include <sys/types.h>

/* An array of numbers, the caller's; NULL with error. */
JsonArray *ports_of_process(pid_t pid, GError **error);

#endif
