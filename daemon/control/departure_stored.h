/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A sealed departure as bytes and files, and back: what departure_store.c stores. Control thread. */
#ifndef POSTCOPYD_CONTROL_DEPARTURE_STORED_H
#define POSTCOPYD_CONTROL_DEPARTURE_STORED_H

#include "daemon/control/departure.h"

/* Its files, each once: the first is the memfd that says what it is, the others are its memory. */
typedef struct StoredFiles {
    guint n;
    int fds[LIMIT_REGIONS + 1];
} StoredFiles;

/* FALSE: not all its memory is shared, or no memfd is to be had.  Only ret_files->fds[0] is new, the
 * caller's to close. */
gboolean departure_to_files(const Departure *departure, StoredFiles *ret_files);

/* A departure that is SEALED, of what an earlier daemon stored; the fds stay the caller's.  NULL with a line
 * in ret_text. */
Departure *departure_from_files(Control *control, const StoredFiles *files, char *ret_text);

#endif
