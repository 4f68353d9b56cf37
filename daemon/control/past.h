/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What migrations cost that are over: the figures of imports as they were at their end, for `stats`.
 *
 * The newest PAST_MOST of them, gone with the daemon.  Control thread.
 */
#ifndef POSTCOPYD_CONTROL_PAST_H
#define POSTCOPYD_CONTROL_PAST_H

#include <json-glib/json-glib.h>

enum { PAST_MOST = 32 };

/*
 * imports: of JsonObject, newest first, owned.  Takes import, an import as `stats` has it, of which it is the end;
 * its vCPUs that had no fault are left out, and the others' histograms.
 */
void past_add(GQueue *imports, JsonObject *import);

/* Those of a VM, by its name or uuid, or of all: a few words of each, but a VM's newest whole.  The caller's. */
JsonArray *past_list(GQueue *imports, const char *vm);

void past_clear(GQueue *imports);

#endif
