/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VMs that an operator lent us, where there is no libvirt: a uuid, a name, a token, and the path of a
 * QMP socket.  Their monitors are connected to when there is something to ask, once for each Guest, as
 * such a socket serves one client at a time.  Any thread.
 */
#ifndef POSTCOPYD_QEMU_LENT_H
#define POSTCOPYD_QEMU_LENT_H

#include "daemon/qemu/guest.h"

enum { LENT_MAX = 1024 };

typedef struct LentBook LentBook;

LentBook *lent_book_new(void);
void lent_book_free(LentBook *book);

/* As guests_lend(), guests_unlend(), guests_find_lent(). */
int lent_add(LentBook *book, const guint8 *uuid, const char *name, const char *monitor,
             const guint8 *token, char *ret_text);
gboolean lent_remove(LentBook *book, const guint8 *uuid);
gboolean lent_find(LentBook *book, const char *name, guint8 *ret_uuid);

/* The guest of this uuid, the caller's; NULL if it is not lent. Its monitor is not asked yet. */
Guest *lent_open(LentBook *book, const guint8 *uuid);

#endif
