/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/lib/event.h"

static const enum postcopy_event event_of_state[CLIENT_STATE_LAST + 1] = {
    [CLIENT_STATE_ARMED] = POSTCOPY_ARMED,         [CLIENT_STATE_RUNNING] = POSTCOPY_RUNNING,
    [CLIENT_STATE_PAUSED] = POSTCOPY_PAUSED,       [CLIENT_STATE_RELEASED] = POSTCOPY_RELEASED,
    [CLIENT_STATE_FENCED] = POSTCOPY_FENCED,       [CLIENT_STATE_BROKEN] = POSTCOPY_BROKEN,
    [CLIENT_STATE_CANCELLED] = POSTCOPY_CANCELLED, [CLIENT_STATE_EXPORTED] = POSTCOPY_EXPORTED,
    [CLIENT_STATE_SEALED] = POSTCOPY_SEALED,       [CLIENT_STATE_DONE] = POSTCOPY_DONE,
};

static bool is_link_event(enum postcopy_event event)
{
    return event == POSTCOPY_CONNECTED || event == POSTCOPY_DISCONNECTED;
}

static void publish(postcopy *pc, const struct postcopy_notification *notification)
{
    bool link = is_link_event(notification->event);
    bool changed;

    pthread_mutex_lock(&pc->lock);
    changed = link || pc->event != (int)notification->event;
    if (!link)
        pc->event = (int)notification->event;
    pthread_cond_broadcast(&pc->changed);
    pthread_mutex_unlock(&pc->lock);
    if (changed && pc->notify)
        pc->notify(pc->user, notification);
}

void event_raise(postcopy *pc, enum postcopy_event event, const char *text)
{
    struct postcopy_notification notification = {.event = event, .text = text};

    publish(pc, &notification);
}

/* Whether memory is in use as an export, which is the daemon's to say. */
static void follow_export(postcopy *pc, ClientState state)
{
    bool exported = state == CLIENT_STATE_EXPORTED || state == CLIENT_STATE_SEALED;

    pthread_mutex_lock(&pc->lock);
    if (!pc->armed.active) {
        pc->exported = exported;
        pc->memory_in_use = exported;
    }
    pthread_mutex_unlock(&pc->lock);
}

/* Whether memory is armed is the library's own knowledge: a state that denies it is not passed on. */
static bool is_plausible(const postcopy *pc, ClientState state)
{
    switch (state) {
    case CLIENT_STATE_ARMED:
    case CLIENT_STATE_RUNNING:
    case CLIENT_STATE_PAUSED:
        return pc->armed.active;
    case CLIENT_STATE_RELEASED:
        return !pc->armed.active;
    default:
        return true;
    }
}

void event_from_state(postcopy *pc, const ClientMessage *message)
{
    struct postcopy_notification notification = {
        .event = event_of_state[message->state.state],
        .populated_bytes = message->state.populated_bytes,
        .present_bytes = message->state.present_bytes,
        .faults = message->state.faults,
        .text = message->state.text,
    };

    follow_export(pc, message->state.state);
    /* IDLE and COMPLETE are no events: what follows them is. */
    if (notification.event && is_plausible(pc, message->state.state))
        publish(pc, &notification);
}

static bool is_final(int event)
{
    return event == POSTCOPY_RELEASED || event == POSTCOPY_CANCELLED || event == POSTCOPY_FENCED ||
           event == POSTCOPY_BROKEN || event == POSTCOPY_DONE;
}

bool event_is_reached(const postcopy *pc, enum postcopy_event event)
{
    if (is_link_event(event))
        return (pc->link == LINK_UP) == (event == POSTCOPY_CONNECTED);
    if (pc->event == (int)event || is_final(pc->event))
        return true;
    if (event == POSTCOPY_ARMED)
        return pc->event == POSTCOPY_RUNNING || pc->event == POSTCOPY_PAUSED;
    return event == POSTCOPY_EXPORTED && pc->event == POSTCOPY_SEALED;
}
