/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A VM that leaves: its export, from the offer until its destination has everything.
 *
 *   ASKING (its client agrees) -> INVITING (the destination's daemon arms) -> OFFERED
 *   -> SEALED (read from now on) -> DONE
 *   before SEALED: anything wrong, or cancelled -> ENDED, undone on both sides
 *   after SEALED: the source ran again, or its switchover failed -> FENCED
 *
 * Control thread, but for the thread that invites and the one that asks the monitor.
 */
#ifndef POSTCOPYD_CONTROL_DEPARTURE_H
#define POSTCOPYD_CONTROL_DEPARTURE_H

#include "daemon/control/connection.h"
#include "daemon/qemu/outgoing.h"
#include "daemon/source/export.h"

/* A guest that runs uses its first vCPUs; so many are watched, and fit what its client keeps. */
enum { DEPARTURE_WATCHED_MAX = 256 };

typedef enum DepartureStage {
    DEPARTURE_ASKING,
    DEPARTURE_INVITING,
    DEPARTURE_OFFERED,
    DEPARTURE_SEALING,
    DEPARTURE_SEALED,
    DEPARTURE_DONE,
    DEPARTURE_ENDED,
} DepartureStage;

/* Whom to answer, and how: a client's OFFER or SEAL, or an operator's request. */
typedef struct Asker {
    guint64 connection;
    guint32 serial;
    ClientMessageType answer; /* OFFERED, SEALED, OK; REPLY for an operator */
} Asker;

/* What the driver of a QEMU says: about its regions, as it found them at both monitors, and what it wants. */
typedef struct DriverRegions {
    PeerRegions names;                            /* address_hint: in the source's client */
    guint64 destination_addresses[LIMIT_REGIONS]; /* in the destination's */
    guint32 n_destination_vcpus;
    guint32 destination_vcpus[LIMIT_VCPUS]; /* thread ids there */
    unsigned transport;                     /* an ImportTransport; AUTO: none in particular */
} DriverRegions;

typedef enum DepartureMode {
    DEPARTURE_DIRECT, /* all its memory comes from here */
    DEPARTURE_ASSIST, /* its QEMU's own post-copy goes on beside us */
} DepartureMode;

typedef struct Departure {
    Control *control;
    Connection *connection; /* NULL once its client is gone */
    guint64 id;
    int pid;
    int pidfd; /* of its client's process */
    DepartureStage stage;
    Export *export;
    char destination[LIMIT_ADDRESS + 1];
    DriverRegions driver; /* names.n is 0 if the client itself knows */
    gboolean relay;
    char relay_path[LIMIT_ADDRESS + 1]; /* our socket for the source's QEMU */
    char incoming[LIMIT_ADDRESS + 1];   /* the destination's socket */
    Asker asker;                        /* of the step under way */
    gboolean waiting;                   /* it has not been answered */
    Asker relay_asker;
    gboolean relay_waiting, relayed;
    gint64 ended_us; /* DONE or ENDED since */
    int withdraw_fd; /* tells the thread that invites to hang up; -1: there is none */
    guint64 owner;   /* the connection whose end undoes it before the seal; 0 */
    guint32 n_vcpus;
    guint32 *vcpus;   /* by the ids we know them by */
    gboolean watched; /* a QEMU: its vCPU threads may not run after the seal */
    guint64 cpu_at_seal_ns;
    DepartureMode mode;
    gboolean lent;     /* without a client from the beginning (departure_lent.h) */
    gboolean leased;   /* lent: a destination attached */
    gboolean awaited;  /* lent: its QEMU is told, or was, what not to send */
    gboolean drifts;   /* libvirt's: nobody drives it any more (departure_libvirt.h) */
    gboolean looking;  /* a thread asks its monitor because of that */
    gint64 looked_us;  /* lent: somebody last began to look whether its migration goes on */
    Outgoing outgoing; /* in assist mode: the connections of the migration it was made for */
    gint64 over_us;    /* since then nothing migrates it; 0 */
    gint64 stopped_us; /* it drifts: since then it stands still; 0 */
    gint64 until_us;   /* lent, in assist mode: one has to until then */
    gint64 unread_us;  /* lent: its process has ended, and nobody has read it, since; 0 */
    guint64 reads;     /* so many by then */
    guint64 seal;      /* as drawn, before it is told */
    char *stored_as;   /* in the service manager's fd store (departure_store.h); NULL: it is not */
    guint n_stored;
    gboolean stored;      /* the service manager has taken it */
    gint64 store_wait_us; /* the order to seal waits for that until then; 0 */
} Departure;

/* Starts a departure; the answer comes later. driver may be NULL. */
void departure_offer(Connection *connection, const char *destination, const DriverRegions *driver,
                     gboolean relay, Asker asker, guint64 owner);

/* HELLO of a source: if it left, or kept a sealed export for us, that is its departure again. FALSE with
 * a line in ret_text. */
gboolean departure_restore(Connection *connection, char *ret_text);

/* Tells a client that came back where it stands, and what to keep from now on. */
void departure_welcome_back(Departure *departure);

/* EXPORTED of the client. */
void departure_exported(Connection *connection, const ClientStatus *status);

/* monitor_fd (taken): ask there whether the guest is stopped; -1: the client itself said so. */
void departure_seal(Departure *departure, int monitor_fd, Asker asker);

/* Undoes it, or has it undone as soon as that is safe (departure_libvirt.h); FALSE after the seal. */
gboolean departure_cancel(Departure *departure, const char *reason);

void departure_relay(Departure *departure, Asker asker);
void departure_running(Departure *departure);
void departure_fence(Departure *departure, const char *reason);

/* A connection ended: a client, or the one that drives. */
void departure_disconnected(Departure *departure);
void departure_owner_gone(Control *control, guint64 connection);

/* Looks whether sealed sources still stand still, and forgets those long over; every tick. */
void departure_tick(Control *control);

void departure_free(Departure *departure);

/* True while it is under way or sealed. */
gboolean departure_is_open(const Departure *departure);

/* True if nobody will be fed from it any more: ended, or fenced. Its VM, if it runs, may leave again. */
gboolean departure_is_over(const Departure *departure);

ClientState departure_state(const Departure *departure);

/* Answers: to a client with a status, to an operator with JSON built from members or an error. */
void asker_answer(Control *control, const Asker *asker, int status, guint64 seal, const char *text);

#endif
