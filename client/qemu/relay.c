/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/relay.h"

/* A time that lies this far ahead of us is no time: the word is damaged. */
static bool is_old(uint64_t since, uint64_t now)
{
    return since > now ? since - now > RELAY_BOUND_NS : now - since >= RELAY_BOUND_NS;
}

static bool is_stale(Relay *relay, const RelayView *view)
{
    if (!view->connected)
        return true;
    if (view->serving)
        relay->served = true;
    else
        return relay->served || is_old(view->registered_at, view->now);
    for (unsigned i = 0; i < PAGE_TABLE_BUSY; i++)
        if (view->busy_since[i] && is_old(view->busy_since[i], view->now))
            return true;
    /* While we relay, nobody but us reads them. */
    return !relay->relaying && view->readable_since && is_old(view->readable_since, view->now);
}

void relay_init(Relay *relay)
{
    *relay = (Relay){.wanted_well = RELAY_WELL_NS};
}

static RelayStep enter(Relay *relay, uint64_t now)
{
    /* A daemon that hangs and owns no fault looks well as long as we relay: not every time anew. */
    if (relay->left_at && now - relay->left_at < relay->wanted_well)
        relay->wanted_well =
            relay->wanted_well * 2 < RELAY_WELL_MAX_NS ? relay->wanted_well * 2 : RELAY_WELL_MAX_NS;
    else
        relay->wanted_well = RELAY_WELL_NS;
    relay->early = !relay->served;
    relay->relaying = true;
    relay->well_since = 0;
    relay->woken_at = now;
    return RELAY_ENTER;
}

RelayStep relay_tick(Relay *relay, const RelayView *view)
{
    bool stale = is_stale(relay, view);

    if (!relay->relaying)
        return stale ? enter(relay, view->now) : RELAY_STAY;
    if (stale) {
        relay->well_since = 0;
        if (view->now - relay->woken_at < RELAY_BOUND_NS)
            return RELAY_STAY;
        relay->woken_at = view->now;
        return RELAY_WAKE;
    }
    if (!relay->well_since)
        relay->well_since = view->now;
    if (!relay->early && view->now - relay->well_since < relay->wanted_well)
        return RELAY_STAY;
    relay->relaying = false;
    relay->left_at = relay->early ? 0 : view->now;
    return RELAY_LEAVE;
}
