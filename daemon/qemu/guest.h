/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A VM on this host that need not be our client: known by its uuid, asked by its QEMU's monitor, looked
 * at in /proc.
 *
 * Where such VMs come from: those an operator lent us (lent.h), and those a provider knows, which
 * is libvirt's agent.  Lent ones are looked for first.
 *
 * Who may call: worker threads and threads of peers only, never the control thread or a data thread.
 * Every function that takes a Guest asks its monitor or reads /proc, and so blocks.  A question to the
 * monitor is given up after GUEST_QUESTION_MS, all that one Guest is asked after
 * GUEST_ALL_QUESTIONS_MS; a provider's must be as well.  A Guest is one thread's; several threads may
 * hold Guests of one VM.  Reasons are one line, in ret_text[LIMIT_TEXT + 1].
 */
#ifndef POSTCOPYD_QEMU_GUEST_H
#define POSTCOPYD_QEMU_GUEST_H

#include <glib.h>

#include "daemon/core/region.h"
#include "protocol/limits.h"
#include "protocol/qmp/monitor.h"

enum {
    GUEST_QUESTION_MS = 5000,
    GUEST_ALL_QUESTIONS_MS = 15000, /* of one Guest, together */
};

/* What is smaller than this is firmware and the like: it is left to QEMU. */
#define GUEST_REGION_LEAST (G_GUINT64_CONSTANT(1) << 20)

typedef struct Guest Guest;
struct Guest {
    guint8 uuid[LIMIT_UUID];
    char name[LIMIT_NAME + 1];
    gboolean has_token; /* else nobody may ask for it */
    guint8 token[LIMIT_TOKEN];
    Monitor monitor; /* .version may be 0 before the first call */
    /*
     * A pidfd of its process, the caller's, and its pid.  They come from who started the process or from
     * the kernel: what a QEMU says of itself could as well be another VM's.  Negative errno with a reason.
     */
    int (*open_process)(const Guest *self, int *ret_pid, char *ret_text);
    void (*close)(Guest *self); /* frees it, with what monitor.user stands for */
};

/*
 * Somebody who knows VMs.  open() finds a running VM by its uuid without asking its QEMU anything,
 * as anybody who reaches our port can make us look.  0 with a Guest that is the caller's; -ENOENT, no
 * text: not known here; other negative errno with a reason.  It is called by many threads at once.
 */
typedef struct GuestProvider {
    int (*open)(void *user, const guint8 *uuid, Guest **ret_guest, char *ret_text);
    void *user;
} GuestProvider;

/* All VMs that can be found. Any thread. */
typedef struct Guests Guests;

Guests *guests_new(void);
void guests_free(Guests *guests);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Guests, guests_free)

/* Takes the place of an earlier provider; what user stands for must outlive guests. Once, before
 * anybody opens. */
void guests_provide(Guests *guests, const GuestProvider *provider);

/* Lends us a VM until it is taken back; one of the same uuid is replaced.  monitor is the path of a QMP
 * socket.  Asks nothing.  0 or negative errno with a reason. */
int guests_lend(Guests *guests, const guint8 *uuid, const char *name, const char *monitor,
                const guint8 *token, char *ret_text);

/* FALSE: it was not lent. */
gboolean guests_unlend(Guests *guests, const guint8 *uuid);

/* The uuid of the lent VM of that name. */
gboolean guests_find_lent(Guests *guests, const char *name, guint8 *ret_uuid);

/* 0 with a guest, -ENOENT, or other negative errno; always with a reason. Asks no monitor. */
int guests_open(Guests *guests, const guint8 *uuid, Guest **ret_guest, char *ret_text);

void guest_close(Guest *guest); /* NULL is allowed */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Guest, guest_close)

/* The process of a guest. */
typedef struct GuestProcess {
    int pid;
    int pidfd; /* owned */
    guint32 n_vcpus;
    guint32 *vcpus; /* thread ids as we know them, in the guest's order; owned */
} GuestProcess;

/* Its vCPUs, as its monitor names them, must all be threads of it. 0 or negative errno. */
int guest_process(const Guest *guest, GuestProcess *ret_process, char *ret_text);
void guest_process_clear(GuestProcess *process);

/*
 * Its RAM: every block of at least GUEST_REGION_LEAST that the guest sees, by id and guest address, of
 * a kind that reads as the process itself would (process.h).  0 or negative errno, then empty.
 */
int guest_regions(const Guest *guest, int pid, RegionSet *ret_regions, char *ret_text);

/* Whether assist mode may ask for it now: it is being migrated, by post-copy, and keeps its memory until
 * all of it has arrived.  0 or negative errno. */
int guest_check_leaving(const Guest *guest, char *ret_text);

/* Whether post-copy may not send as fast as it can (max-postcopy-bandwidth); TRUE if QEMU does not say. */
gboolean guest_postcopy_is_limited(const Guest *guest);

/* Whether its QEMU says that it runs; FALSE too if that does not answer. */
gboolean guest_says_running(const Guest *guest);

/* Whether its memory is final: 0, -EBUSY if the guest is not stopped (yet), other negative errno. */
int guest_check_postcopy(const Guest *guest, char *ret_text); /* stopped, and runs elsewhere */
int guest_check_stopped(const Guest *guest, char *ret_text);  /* stopped, for its migration */

#endif
