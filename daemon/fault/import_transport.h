/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How an import's pages come, for reports: TCP or RDMA, why, and what it took.  Any thread; the figures lag
 * behind by what is under way.
 */
#ifndef POSTCOPYD_FAULT_IMPORT_TRANSPORT_H
#define POSTCOPYD_FAULT_IMPORT_TRANSPORT_H

#include <stdint.h>

#include "daemon/fault/import.h"

enum { IMPORT_DEVICE_NAME = 64 };

typedef struct ImportTransportReport {
    const char *kind;                /* "rdma" or "tcp"; of a link that is down: what it was */
    char device[IMPORT_DEVICE_NAME]; /* "rxe0"; "" while it is TCP */
    char reason[LIMIT_TEXT + 1]; /* why it is not RDMA, one line; "" while it is, or need not be */
    unsigned pairs;              /* channels that READ by themselves */
    uint64_t pinned_bytes;       /* staging and landing, now */
    uint64_t reads, read_bytes;  /* READs of the device, and what they brought */
    uint64_t landed_pages;       /* READ to where they belong, shown by CONTINUE */
    uint64_t staged_pages;       /* READ to staging, then copied */
    uint64_t spans;    /* of the source's memory that keys were told for, this connection */
    uint64_t failures; /* connections that RDMA ended, ever */
} ImportTransportReport;

void import_transport(Import *import, ImportTransportReport *ret_report);

/* --- for the data threads: FetchSink.source and FetchSink.land ---------------------------- */

uint32_t import_source(const Import *import, uint32_t region, uint64_t page, uint32_t count,
                       FetchSource *ret_source);
uint32_t import_land(const Import *import, const Fetch *fetch, uint32_t first, uint32_t count,
                     FetchLanding *ret_landing);

#endif
