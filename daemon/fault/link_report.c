/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/link_report.h"

#include <string.h>

#include "daemon/core/clock.h"
#include "daemon/fault/import.h"

int link_send(Link *link, PeerMessageType type)
{
    link->message->type = type;
    link->message->session = link->lease.session;
    link->message->cookie = 0;
    return peer_socket_send(link->control, link->message);
}

int link_report(Link *link)
{
    Import *import = link->import;
    PeerMessage *m = link->message;
    HistogramSummary latency;

    memset(m, 0, sizeof *m);
    m->progress.state = import_state(import);
    m->progress.populated_bytes = atomic_load(&import->counters.populated_bytes);
    m->progress.present_bytes = import_present_bytes(import);
    m->progress.missing_at_running = import_missing_at_running(import);
    m->progress.faults = atomic_load(&import->counters.faults);
    /* Until then the data threads are being made. */
    m->progress.received_bytes = atomic_load(&link->armed) ? import_received_bytes(import) : 0;
    histogram_summarise(&import->latency, &latency);
    m->progress.fault_p50_ns = latency.p50_ns;
    m->progress.fault_p99_ns = latency.p99_ns;
    pthread_mutex_lock(&import->text_lock);
    memcpy(m->progress.text, import->text, sizeof m->progress.text);
    pthread_mutex_unlock(&import->text_lock);
    link->reported_ns = clock_ns();
    return link_send(link, PEER_PROGRESS);
}
