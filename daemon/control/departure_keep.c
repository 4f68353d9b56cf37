/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/departure_keep.h"

#include <stdio.h>
#include <string.h>

#include "daemon/core/log.h"

enum { KEEP_VERSION = 2 };

#define KEEP_MAGIC UINT32_C(0x4b584350) /* "PCXK" */

void departure_pack(const Departure *departure, guint64 seal, WireWriter *w)
{
    const Export *export = departure->export;
    const RegionSet *regions = &export->memory.regions;

    wire_write_u32(w, KEEP_MAGIC);
    wire_write_u32(w, KEEP_VERSION);
    wire_write_u64(w, seal);
    wire_write_u8(w, atomic_load(&export->fenced));
    wire_write_u8(w, departure->watched != FALSE);
    wire_write_u64(w, departure->cpu_at_seal_ns);
    wire_write_u32(w, departure->watched ? departure->n_vcpus : 0);
    for (guint32 i = 0; departure->watched && i < departure->n_vcpus; i++)
        wire_write_u32(w, departure->vcpus[i]);
    wire_write_bytes(w, export->token, sizeof export->token);
    wire_write_string(w, departure->destination, LIMIT_ADDRESS);
    wire_write_u32(w, regions->n);
    for (uint32_t i = 0; i < regions->n; i++) {
        wire_write_string(w, regions->regions[i].id, LIMIT_REGION_ID);
        wire_write_u64(w, regions->regions[i].guest_address);
    }
}

void departure_keep(Departure *departure)
{
    ClientMessage *reply = departure->control->reply;
    WireWriter w = {.data = reply->keep.blob, .size = sizeof reply->keep.blob};

    if (!departure->connection)
        return;
    if (departure->stage == DEPARTURE_SEALED)
        departure_pack(departure, atomic_load(&departure->export->seal), &w);
    if (w.failed) {
        log_warning("%s: too many regions to outlive this daemon", departure->export->name);
        return;
    }
    reply->type = CLIENT_KEEP;
    reply->serial = 0;
    reply->keep.length = (guint32)w.used;
    connection_send(departure->connection, NULL, 0);
}

/* The names a driver gave to regions whose client could not know them. */
static gboolean unpack_names(WireReader *r, RegionSet *regions)
{
    uint32_t n = wire_read_count(r, LIMIT_REGIONS);

    if (n != regions->n)
        return FALSE;
    for (uint32_t i = 0; i < n; i++) {
        wire_read_string(r, regions->regions[i].id, LIMIT_REGION_ID);
        regions->regions[i].guest_address = wire_read_u64(r);
    }
    return TRUE;
}

static void unpack_vcpus(WireReader *r, Departure *departure)
{
    departure->n_vcpus = wire_read_count(r, DEPARTURE_WATCHED_MAX);
    g_free(departure->vcpus);
    departure->vcpus = g_new0(guint32, departure->n_vcpus);
    for (guint32 i = 0; i < departure->n_vcpus; i++)
        departure->vcpus[i] = wire_read_u32(r);
}

gboolean departure_unpack_kept(WireReader *r, Departure *departure, RegionSet *named,
                               Kept *ret_kept)
{
    guint32 magic = wire_read_u32(r), version = wire_read_u32(r);

    ret_kept->seal = wire_read_u64(r);
    ret_kept->fenced = wire_read_u8(r) != 0;
    departure->watched = wire_read_u8(r) != 0;
    departure->cpu_at_seal_ns = wire_read_u64(r);
    unpack_vcpus(r, departure);
    wire_read_bytes(r, ret_kept->token, sizeof ret_kept->token);
    wire_read_string(r, departure->destination, LIMIT_ADDRESS);
    return magic == KEEP_MAGIC && version == KEEP_VERSION && ret_kept->seal != 0 &&
           unpack_names(r, named) && !r->failed;
}

gboolean departure_unpack(Departure *departure, const Connection *connection, ExportNotify notify,
                          char *ret_text)
{
    WireReader r = {.data = connection->blob, .left = connection->blob_length};
    g_autofree RegionSet *named = g_memdup2(&connection->regions, sizeof connection->regions);
    Kept kept;
    int error;

    if (!departure_unpack_kept(&r, departure, named, &kept) || !wire_read_complete(&r)) {
        g_strlcpy(ret_text, "what it kept of its export is malformed", LIMIT_TEXT + 1);
        return FALSE;
    }
    departure->export =
        export_restore(connection->uuid, connection->name, connection->peer.pid, named, kept.token,
                       kept.seal, notify, departure->control, &error);
    if (!departure->export) {
        g_snprintf(ret_text, LIMIT_TEXT + 1, "cannot export its memory again: %s",
                   strerror(-error));
        return FALSE;
    }
    if (kept.fenced)
        export_fence(departure->export, "it was fenced before this daemon started");
    departure->stage = DEPARTURE_SEALED;
    return TRUE;
}
