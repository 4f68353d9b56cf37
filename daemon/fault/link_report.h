/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an import's link tells the source's daemon. Link thread. */
#ifndef POSTCOPYD_FAULT_LINK_REPORT_H
#define POSTCOPYD_FAULT_LINK_REPORT_H

#include "daemon/fault/link.h"

/* A message without a body. 0 or negative errno. */
int link_send(Link *link, PeerMessageType type);

/* How far the import is. 0 or negative errno. */
int link_report(Link *link);

#endif
