/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "protocol/peer_wire.h"

static void write_regions(WireWriter *w, const PeerRegions *regions)
{
    if (regions->n > LIMIT_REGIONS) {
        w->failed = true;
        return;
    }
    wire_write_u32(w, regions->n);
    for (uint32_t i = 0; i < regions->n; i++) {
        const PeerRegion *region = &regions->regions[i];
        wire_write_string(w, region->id, LIMIT_REGION_ID);
        wire_write_u64(w, region->guest_address);
        wire_write_u64(w, region->length);
        wire_write_u64(w, region->page_size);
        wire_write_u64(w, region->backing);
        wire_write_u64(w, region->address_hint);
    }
}

static void read_regions(WireReader *r, PeerRegions *ret_regions)
{
    ret_regions->n = wire_read_count(r, LIMIT_REGIONS);
    for (uint32_t i = 0; i < ret_regions->n; i++) {
        PeerRegion *region = &ret_regions->regions[i];
        wire_read_string(r, region->id, LIMIT_REGION_ID);
        region->guest_address = wire_read_u64(r);
        region->length = wire_read_u64(r);
        region->page_size = wire_read_u64(r);
        region->backing = wire_read_u64(r);
        region->address_hint = wire_read_u64(r);
        if (!limits_region_fits(region->length, region->page_size) ||
            region->page_size > PEER_PAGE_SIZE_MAX)
            r->failed = true;
    }
}

static void write_vcpus(WireWriter *w, const uint32_t *tids, uint32_t n)
{
    if (n > LIMIT_VCPUS) {
        w->failed = true;
        return;
    }
    wire_write_u32(w, n);
    for (uint32_t i = 0; i < n; i++)
        wire_write_u32(w, tids[i]);
}

static void write_hello(WireWriter *w, const PeerMessage *m)
{
    wire_write_u16(w, m->hello.version_lowest);
    wire_write_u16(w, m->hello.version_highest);
    wire_write_u64(w, m->hello.features_required);
    wire_write_u64(w, m->hello.features_optional);
    wire_write_u64(w, m->hello.page_size);
    wire_write_string(w, m->hello.machine, LIMIT_REGION_ID);
    wire_write_string(w, m->hello.agent, LIMIT_REGION_ID);
}

static void read_hello(WireReader *r, PeerMessage *m)
{
    m->hello.version_lowest = wire_read_u16(r);
    m->hello.version_highest = wire_read_u16(r);
    m->hello.features_required = wire_read_u64(r);
    m->hello.features_optional = wire_read_u64(r);
    m->hello.page_size = wire_read_u64(r);
    wire_read_string(r, m->hello.machine, LIMIT_REGION_ID);
    wire_read_string(r, m->hello.agent, LIMIT_REGION_ID);
}

static void write_invite(WireWriter *w, const PeerMessage *m)
{
    wire_write_bytes(w, m->invite.uuid, LIMIT_UUID);
    wire_write_string(w, m->invite.name, LIMIT_NAME);
    wire_write_bytes(w, m->invite.token, LIMIT_TOKEN);
    wire_write_string(w, m->invite.source, LIMIT_ADDRESS);
    write_regions(w, &m->invite.regions);
    write_vcpus(w, m->invite.vcpus, m->invite.n_vcpus);
    wire_write_u32(w, m->invite.flags);
}

static void read_invite(WireReader *r, PeerMessage *m)
{
    wire_read_bytes(r, m->invite.uuid, LIMIT_UUID);
    wire_read_string(r, m->invite.name, LIMIT_NAME);
    wire_read_bytes(r, m->invite.token, LIMIT_TOKEN);
    wire_read_string(r, m->invite.source, LIMIT_ADDRESS);
    read_regions(r, &m->invite.regions);
    m->invite.n_vcpus = wire_read_count(r, LIMIT_VCPUS);
    for (uint32_t i = 0; i < m->invite.n_vcpus; i++)
        m->invite.vcpus[i] = wire_read_u32(r);
    m->invite.flags = wire_read_u32(r);
}

static void write_ask(WireWriter *w, const PeerMessage *m)
{
    wire_write_bytes(w, m->ask.uuid, LIMIT_UUID);
    wire_write_string(w, m->ask.name, LIMIT_NAME);
    wire_write_bytes(w, m->ask.token, LIMIT_TOKEN);
    wire_write_string(w, m->ask.connection, LIMIT_ADDRESS);
}

static void read_ask(WireReader *r, PeerMessage *m)
{
    wire_read_bytes(r, m->ask.uuid, LIMIT_UUID);
    wire_read_string(r, m->ask.name, LIMIT_NAME);
    wire_read_bytes(r, m->ask.token, LIMIT_TOKEN);
    wire_read_string(r, m->ask.connection, LIMIT_ADDRESS);
}

static void write_asked(WireWriter *w, const PeerMessage *m)
{
    wire_write_u32(w, m->asked.code);
    wire_write_text(w, m->asked.text, LIMIT_TEXT);
    wire_write_bytes(w, m->asked.token, LIMIT_TOKEN);
    if (m->asked.flags)
        wire_write_u32(w, m->asked.flags);
}

static void read_asked(WireReader *r, PeerMessage *m)
{
    m->asked.code = wire_read_count(r, PEER_ERROR_LAST);
    wire_read_string(r, m->asked.text, LIMIT_TEXT);
    wire_read_bytes(r, m->asked.token, LIMIT_TOKEN);
    if (r->left > 0) {
        m->asked.flags = wire_read_u32(r);
        r->failed =
            r->failed || m->asked.flags == 0; /* left out then: there is one way to say it */
    } else {
        m->asked.flags = 0;
    }
}

static void write_status(WireWriter *w, const PeerMessage *m)
{
    wire_write_u32(w, m->status.code);
    wire_write_text(w, m->status.text, LIMIT_TEXT);
    wire_write_string(w, m->status.incoming, LIMIT_ADDRESS);
}

static void read_status(WireReader *r, PeerMessage *m)
{
    m->status.code = wire_read_count(r, PEER_ERROR_LAST);
    wire_read_string(r, m->status.text, LIMIT_TEXT);
    wire_read_string(r, m->status.incoming, LIMIT_ADDRESS);
}

static void write_attach(WireWriter *w, const PeerMessage *m)
{
    wire_write_bytes(w, m->attach.uuid, LIMIT_UUID);
    wire_write_string(w, m->attach.name, LIMIT_NAME);
    wire_write_bytes(w, m->attach.token, LIMIT_TOKEN);
}

static void read_attach(WireReader *r, PeerMessage *m)
{
    wire_read_bytes(r, m->attach.uuid, LIMIT_UUID);
    wire_read_string(r, m->attach.name, LIMIT_NAME);
    wire_read_bytes(r, m->attach.token, LIMIT_TOKEN);
}

static void write_attached(WireWriter *w, const PeerMessage *m)
{
    wire_write_u32(w, m->attached.code);
    wire_write_text(w, m->attached.text, LIMIT_TEXT);
    wire_write_u64(w, m->attached.seal);
    wire_write_bytes(w, m->attached.secret, LIMIT_TOKEN);
    write_regions(w, &m->attached.regions);
}

static void read_attached(WireReader *r, PeerMessage *m)
{
    m->attached.code = wire_read_count(r, PEER_ERROR_LAST);
    wire_read_string(r, m->attached.text, LIMIT_TEXT);
    m->attached.seal = wire_read_u64(r);
    wire_read_bytes(r, m->attached.secret, LIMIT_TOKEN);
    read_regions(r, &m->attached.regions);
}

static void write_join(WireWriter *w, const PeerMessage *m)
{
    wire_write_bytes(w, m->join.secret, LIMIT_TOKEN);
    wire_write_u32(w, m->join.kind);
    wire_write_u32(w, m->join.index);
}

static void read_join(WireReader *r, PeerMessage *m)
{
    wire_read_bytes(r, m->join.secret, LIMIT_TOKEN);
    m->join.kind = wire_read_count(r, PEER_CHANNEL_RELAY);
    m->join.index = wire_read_u32(r);
}

void peer_write_control(WireWriter *w, const PeerMessage *m)
{
    switch (m->type) {
    case PEER_START:
    case PEER_STARTED:
        wire_write_u64(w, m->start.magic);
        wire_write_u8(w, m->start.tls);
        break;
    case PEER_HELLO:
        write_hello(w, m);
        break;
    case PEER_INVITE:
        write_invite(w, m);
        break;
    case PEER_ASK:
        write_ask(w, m);
        break;
    case PEER_ASKED:
        write_asked(w, m);
        break;
    case PEER_INVITED:
    case PEER_JOINED:
    case PEER_FENCED:
    case PEER_BYE:
        write_status(w, m);
        break;
    case PEER_ATTACH:
        write_attach(w, m);
        break;
    case PEER_ATTACHED:
        write_attached(w, m);
        break;
    case PEER_JOIN:
        write_join(w, m);
        break;
    case PEER_SEALED:
        wire_write_u64(w, m->sealed.seal);
        break;
    default:
        w->failed = true;
    }
}

void peer_read_control(WireReader *r, PeerMessage *m)
{
    switch (m->type) {
    case PEER_START:
    case PEER_STARTED:
        m->start.magic = wire_read_u64(r);
        m->start.tls = wire_read_u8(r) != 0;
        break;
    case PEER_HELLO:
        read_hello(r, m);
        break;
    case PEER_INVITE:
        read_invite(r, m);
        break;
    case PEER_ASK:
        read_ask(r, m);
        break;
    case PEER_ASKED:
        read_asked(r, m);
        break;
    case PEER_INVITED:
    case PEER_JOINED:
    case PEER_FENCED:
    case PEER_BYE:
        read_status(r, m);
        break;
    case PEER_ATTACH:
        read_attach(r, m);
        break;
    case PEER_ATTACHED:
        read_attached(r, m);
        break;
    case PEER_JOIN:
        read_join(r, m);
        break;
    case PEER_SEALED:
        m->sealed.seal = wire_read_u64(r);
        break;
    default:
        r->failed = true;
    }
}
