/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an export's life (export.c) needs of its lease (export_lease.c). */
#ifndef POSTCOPYD_SOURCE_EXPORT_LEASE_H
#define POSTCOPYD_SOURCE_EXPORT_LEASE_H

#include "daemon/source/export.h"

/*
 * Under the export's lock: every connection of the lease ends; their threads see it and go.
 * how: SHUT_WR lets the peer read the last orders before it hears of the end.
 */
void export_end_connections(Export *export, int how);

#endif
