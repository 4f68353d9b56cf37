/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the agent share. Nothing here is for anybody else. */
#ifndef POSTCOPYD_QEMU_AGENT_PRIVATE_H
#define POSTCOPYD_QEMU_AGENT_PRIVATE_H

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <pthread.h>

#include "daemon/qemu/agent.h"
#include "daemon/qemu/lanes.h"
#include "daemon/qemu/mark.h"
#include "daemon/qemu/passes.h"

enum { AGENT_EVENTS = 4 };

/* A domain's lanes: what is in one of them does not wait for the others. */
typedef enum AgentLane {
    LANE_DOMAIN,  /* whatever writes its metadata, and its capability */
    LANE_MONITOR, /* questions of Guests */
    LANE_POSTCOPY /* the guest's wait depends on it */
} AgentLane;

/* What is tried again until it goes. */
typedef enum AgentRetry { RETRY_LOOK, RETRY_CHECK, RETRY_CLEAR, AGENT_RETRIES } AgentRetry;

/* A running domain about which there is something to remember; guarded by the agent's lock. */
typedef struct AgentDomain {
    guint8 uuid[LIMIT_UUID];
    char name[LIMIT_NAME + 1]; /* plain text */
    gboolean enabled;
    gboolean has_token;
    guint8 token[LIMIT_TOKEN];
    gboolean renew; /* the token is that of the host it came from */
    guint run;      /* libvirt's id, another one each time that it starts; 0: not known */
    gboolean has_defined;
    MarkEnabled defined; /* what its definition said at the last look */
    Passes passes;
    gboolean look_again;            /* its metadata could not be written */
    gboolean check_again;           /* its capability has to be looked at */
    gboolean clear_wanted;          /* its capability is to be off */
    gboolean posted[AGENT_RETRIES]; /* that waits for its lane: it is not posted again meanwhile */
    gboolean complained;            /* a line was logged about its metadata */
} AgentDomain;

struct Agent {
    char *uri;
    unsigned start_postcopy;
    gboolean all;
    void (*found_ignore_shared)(void *user, const guint8 *uuid, const char *name);
    gboolean (*is_attended)(void *user, const guint8 *uuid);
    void *user;

    pthread_mutex_t lock;
    pthread_cond_t changed;   /* stopping, lost, connector_ended or events_ended */
    virConnectPtr connection; /* NULL: none */
    GPtrArray *domains;       /* of AgentDomain, owned */
    gboolean stopping, lost, connector_ended, events_ended;

    Lanes *lanes;
    pthread_t connector, events;
    int waker;                   /* libvirt's timer that ends the event loop's wait */
    int callbacks[AGENT_EVENTS]; /* connector only; -1: none */
    gboolean left;               /* threads of it were left behind at the stop */
};

/* --- agent.c --- */

/* The connection with a reference of the caller's (virConnectClose), NULL if there is none. */
virConnectPtr agent_connection(Agent *agent);

gboolean agent_is_stopping(Agent *agent);

/* The running domain, the caller's (virDomainFree).  NULL with *ret_gone: whether there is surely no such
 * domain running, or it is just not to be found out. */
virDomainPtr agent_find(Agent *agent, const guint8 *uuid, gboolean *ret_gone);

/* Under the lock. */
AgentDomain *agent_domain(Agent *agent, const guint8 *uuid);      /* NULL: not known */
AgentDomain *agent_domain_make(Agent *agent, const guint8 *uuid); /* known from now on */

/* The domain does not run any more. */
void agent_forget(Agent *agent, const guint8 *uuid);

/* What libvirt said last on this thread, as one line; g_free().  A copy, for all of its calls forget it, also
 * those that only look up a name. */
char *agent_error(void);

/* --- agent_jobs.c --- */

typedef enum LookReason {
    LOOK_CONNECTED, /* whatever happened before, nobody has seen */
    LOOK_STARTED,
    LOOK_ARRIVED,
    LOOK_CHANGED, /* somebody wrote our metadata, maybe we ourselves */
    LOOK_AGAIN
} LookReason;

typedef struct AgentJob {
    Agent *agent;
    guint8 uuid[LIMIT_UUID];
    LookReason reason;
    int pass;
    gboolean is_retry; /* the one noted in posted[retry] */
    AgentRetry retry;
    AgentDone done; /* NULL: nobody wants to know */
    void *user;
} AgentJob;

/* Posts it; the job is copied. */
void agent_post(const AgentJob *job, AgentLane kind, void (*run)(AgentJob *job));

/* Tells whoever asked; once. */
void agent_job_done(AgentJob *job, const char *problem);

/* --- agent_metadata.c: on a lane --- */

/* FALSE: it could not be read. */
gboolean agent_read_mark(virDomainPtr domain, Mark *ret_mark, gboolean *ret_known);

/* All but mark->enabled, which is its owner's. */
gboolean agent_write_mark(virDomainPtr domain, const Mark *mark);

/*
 * Whether libvirt is at something with the domain that goes on for long, a migration in either direction or
 * saving it: it lets nobody change the domain then, and makes him wait for half a minute before it says so.
 */
gboolean agent_is_busy(virDomainPtr domain);

/* Reads a domain's metadata, and gives it a token if it takes part. */
void agent_look(AgentJob *job);

/* --- agent_capability.c: on a lane --- */

void agent_check_capability(AgentJob *job);
void agent_clear_capability(AgentJob *job);

/* --- agent_events.c --- */

/* Also for each new connection. Connector. */
void agent_events_register(Agent *agent, virConnectPtr connection);
void agent_events_deregister(Agent *agent, virConnectPtr connection);

/* --- agent_guest.c --- */

/* A monitor that asks libvirt itself, for as long as that takes: for lanes. domain must outlive it. */
Monitor agent_domain_monitor(virDomainPtr domain);

#endif
