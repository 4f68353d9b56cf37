/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon's connection to libvirt, kept up for ever: which domains take part, their tokens, the switch
 * to post-copy, and the migration capability that must never be left on.
 *
 * libvirt may block for any time, as a QEMU that hangs blocks it.  So its calls are made on threads of the
 * agent's own (lanes.h), in the order they were asked for in each domain and kind, and domains do not
 * wait for each other.  Events come on a thread that does nothing else.
 */
#ifndef POSTCOPYD_QEMU_AGENT_H
#define POSTCOPYD_QEMU_AGENT_H

#include <glib.h>

#include "daemon/qemu/guest.h"

typedef struct Agent Agent;

typedef struct AgentConfig {
    const char *uri;         /* copied */
    unsigned start_postcopy; /* passes; 0: never */
    gboolean all;            /* all domains take part that do not say no */
    /*
     * A running domain, that is not being migrated, has x-ignore-shared on: saved like this it would lose
     * its memory.  Whoever knows that nobody needs it now calls agent_clear_ignore_shared().  On a
     * thread of the agent's; may be NULL.
     */
    void (*found_ignore_shared)(void *user, const guint8 *uuid, const char *name);
    /*
     * Whether a destination is ready to assist this domain: post-copy is started once one is, or
     * soon after its pass all the same.  On a thread of the agent's; may be NULL.
     */
    gboolean (*is_attended)(void *user, const guint8 *uuid);
    void *user;
} AgentConfig;

/* Connects, and goes on trying. A host without libvirt is no error. Control thread, as all that follows
 * unless it says otherwise. */
Agent *agent_start(const AgentConfig *config);

/*
 * Disconnects, within about two seconds: threads that libvirt does not give back are left, with what they
 * use.  Functions of the agent's may still be called, and find nobody there; it itself calls nothing any
 * more, also nothing that one of those threads should have.
 */
void agent_stop(Agent *agent);

/* After agent_stop(), where no other thread can call anything of it, and all its Guests are closed. */
void agent_free(Agent *agent);

/* Any thread. */
gboolean agent_is_connected(Agent *agent);
const char *agent_uri(const Agent *agent);

/* Whether a running domain takes part, as far as is known. Any thread. */
gboolean agent_is_enabled(Agent *agent, const guint8 *uuid);

/* The uuids of all of them, LIMIT_UUID bytes each; the caller's. Any thread. */
GByteArray *agent_enabled(Agent *agent);

/* Domains that have a token, as guests (guest.h); valid until agent_free(). */
GuestProvider agent_provider(Agent *agent);

/*
 * How it went, on a thread of the agent's: problem is NULL or one line.  Called once for each request,
 * also one that agent_stop() throws away.
 */
typedef void (*AgentDone)(void *user, const guint8 *uuid, const char *problem);

/*
 * Switches the capability on in a running domain's QEMU.  It is noted in the domain's live metadata
 * first, so that any later daemon, here or where the domain goes, knows that it has to look.
 */
void agent_set_ignore_shared(Agent *agent, const guint8 *uuid, AgentDone done, void *user);

/*
 * Switches it off.  done hears of the first try; whatever came of that, the agent goes on trying until it is
 * off, the domain is gone, or it is to be on again.
 */
void agent_clear_ignore_shared(Agent *agent, const guint8 *uuid, AgentDone done, void *user);

#endif
