/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * systemd's store of file descriptors: what lies there is handed to the next daemon.
 *
 * The service manager may be slow, and its socket full, so a thread of the store's own speaks with it, and
 * does what it is asked in the order in which it was asked.  All functions: control thread.
 */
#ifndef POSTCOPYD_CONTROL_FD_STORE_H
#define POSTCOPYD_CONTROL_FD_STORE_H

#include <glib.h>

typedef struct FdStore FdStore;

/* Told on the store's thread, once: whether the service manager has taken all of it. */
typedef void (*FdStored)(gpointer user, gboolean taken);

/* NULL if no service manager started us. */
FdStore *fd_store_new(void);

/* True if it keeps what it has when the service is stopped, too, and not only when it fails or is restarted.
 * False for NULL. */
gboolean fd_store_outlives_stop(const FdStore *store);

/* Stores fds, of which it makes copies, under the names STEM-0 and so on.  FALSE: there is no room, or no
 * file descriptor left, and stored() will not be called. */
gboolean fd_store_add(FdStore *store, const char *stem, const int *fds, guint n, FdStored stored,
                      gpointer user);

/* Takes n fds of that stem out again; those not there do not matter. */
void fd_store_remove(FdStore *store, const char *stem, guint n);

/* n that an earlier daemon stored are there. */
void fd_store_count(FdStore *store, guint n);

/* Stopping takes half a minute more, from now on. */
void fd_store_ask_for_time(FdStore *store);

/* The process ends: waits a moment for what is under way.  From now on the store is left as it is.  NULL is
 * allowed. */
void fd_store_close(FdStore *store);

#endif
