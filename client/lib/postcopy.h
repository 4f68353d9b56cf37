/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libpostcopy: how a virtual machine monitor hands its guest's memory to postcopyd.
 *
 * A VMM describes its guest's RAM and vCPU threads and connects to the daemon of its host.  The
 * library keeps the connection on a thread of its own (all signals blocked) and restores it when
 * the daemon was restarted; the guest needs nothing from the VMM meanwhile.
 *
 * The source:                              The destination, before its guest runs:
 *   postcopy_connect(role SOURCE)            postcopy_connect(role DESTINATION)
 *   postcopy_offer("other-host:16520")  ──▶  notified POSTCOPY_ARMED
 *   stop the vCPUs
 *   postcopy_seal()                     ──▶  notified POSTCOPY_RUNNING: the memory is served
 *   send device state by own means      ──▶  load it, run the vCPUs, postcopy_running()
 *                                            notified POSTCOPY_RELEASED: all memory is here
 *   notified POSTCOPY_DONE: may exit
 *
 * The rules a VMM has to keep:
 *  - From POSTCOPY_ARMED on a destination's memory must not be written by anyone but the guest and
 *    its devices, not discarded, not forked into a child that reads it, and not mapped a second time.
 *  - A source whose postcopy_seal() succeeded must never run its guest again; if it has to,
 *    postcopy_running() fences the export first: the destination then gets nothing more.
 *  - A source with anonymous (or MAP_PRIVATE) memory must stay alive until POSTCOPY_DONE.
 *
 * Functions return 0 or a negative errno; postcopy_error() then holds one line for people.  They
 * may be called from any thread, except from within the notification callback.
 */
#ifndef POSTCOPY_H
#define POSTCOPY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define POSTCOPY_DEFAULT_SOCKET "/run/postcopyd/postcopyd.sock"

/* Where a region lies in guest physical memory is not known. */
#define POSTCOPY_GUEST_ADDRESS_UNKNOWN UINT64_MAX

typedef struct postcopy postcopy;

enum postcopy_role {
    POSTCOPY_SOURCE = 1,
    POSTCOPY_DESTINATION = 2,
};

enum postcopy_backing {
    POSTCOPY_ANONYMOUS = 0, /* no fd */
    POSTCOPY_SHARED = 1,    /* MAP_SHARED of fd: memfd, tmpfs or hugetlbfs file */
    POSTCOPY_PRIVATE = 2,   /* MAP_PRIVATE of fd */
};

/*
 * Parts of the region may be given back while it arrives, as a balloon does: by madvise(DONTNEED or
 * REMOVE) or munmap, a hole being punched in its file before that, if at all.  They read as zero
 * afterwards.  Such a call waits until the daemon has heard of it; with no daemon alive the library
 * answers in its place.
 */
#define POSTCOPY_REGION_REMOVABLE 1u

/*
 * A destination's region that is not mapped yet, as memory that is plugged in later: address NULL, fd -1,
 * fd_offset 0, and an id or guest address by which it is known.  postcopy_add_region() brings it.
 */
#define POSTCOPY_REGION_ABSENT 2u

/* A contiguous range of guest RAM.  Both sides must have the same ids, guest addresses, lengths and
 * page sizes; the order does not matter. */
struct postcopy_region {
    const char *id;         /* at most 127 bytes of UTF-8; NULL or "" if not known to the VMM */
    uint64_t guest_address; /* guest physical; POSTCOPY_GUEST_ADDRESS_UNKNOWN if not known */
    void *address;          /* aligned to page_size */
    uint64_t length;        /* bytes, a multiple of page_size */
    uint64_t page_size;     /* 4096, or 2 MiB on hugetlbfs */
    enum postcopy_backing backing;
    int fd;             /* duplicated by the library; -1 if anonymous */
    uint64_t fd_offset; /* where in fd the region starts */
    uint32_t flags;     /* POSTCOPY_REGION_* */
};

enum postcopy_event {
    POSTCOPY_ARMED = 1,   /* destination: faults are registered; touching memory now waits */
    POSTCOPY_RUNNING = 2, /* destination: the source is sealed and its memory served */
    POSTCOPY_PAUSED = 3,  /* destination: the link is down; missing pages wait; resumes by itself */
    POSTCOPY_RELEASED = 4,  /* destination: all memory is here, the daemon is out of the way */
    POSTCOPY_CANCELLED = 5, /* both: undone before the seal; a destination's memory reads as zero */
    POSTCOPY_FENCED = 6,    /* destination: the source ran again; this guest must be destroyed */
    POSTCOPY_BROKEN = 7,    /* destination: its memory cannot be completed; text says why */
    POSTCOPY_EXPORTED = 8,  /* source: a destination is armed for this guest */
    POSTCOPY_SEALED = 9,    /* source */
    POSTCOPY_DONE = 10,     /* source: the destination has everything */
    POSTCOPY_CONNECTED = 11,    /* the daemon answered */
    POSTCOPY_DISCONNECTED = 12, /* the daemon is gone; the library tries again */
};

struct postcopy_notification {
    enum postcopy_event event;
    uint64_t populated_bytes; /* guest memory with content; 0 until known */
    uint64_t present_bytes;   /* of it, already here */
    uint64_t faults;
    const char *text; /* a reason, or ""; valid during the call */
};

struct postcopy_config {
    size_t size;        /* sizeof(struct postcopy_config) */
    const char *socket; /* NULL: POSTCOPY_DEFAULT_SOCKET */
    enum postcopy_role role;
    uint8_t uuid[16]; /* all zero: none, the name identifies the VM */
    const char *name; /* at most 255 bytes of UTF-8 without control characters */
    const struct postcopy_region *regions;
    size_t n_regions;      /* 1 to 128, or 0 if refuse tells why */
    const uint32_t *vcpus; /* kernel thread ids in vCPU order; may be NULL */
    size_t n_vcpus;        /* 0 to 4096 */
    /*
     * Called on the library's thread; must not call the library and should return soon.  May be NULL.
     */
    void (*notify)(void *user, const struct postcopy_notification *notification);
    /*
     * Asked on the library's thread before memory is armed or exported, and whenever the library
     * introduces this guest to a daemon, for the operator to see: NULL, or why this guest cannot be
     * served, a string that stays valid until the next call.  Must not call the library.  May be
     * NULL.
     */
    const char *(*refuse)(void *user, enum postcopy_role role);
    void *user;
};

/*
 * Starts the library's thread, which connects and keeps trying.  *ret is the caller's until
 * postcopy_free().  Everything config points to may go after the return.
 * -EINVAL: the configuration is unusable.  -ENOMEM, -EMFILE.
 * POSTCOPY_WAIT: returns only when the daemon answered, or -ETIMEDOUT after timeout_ms, or the
 * daemon's refusal (-EACCES, -EEXIST, -EPROTO …), with *ret NULL.
 */
#define POSTCOPY_WAIT 1u
int postcopy_connect(const struct postcopy_config *config, unsigned flags, int timeout_ms,
                     postcopy **ret);

/*
 * Ends the connection and frees everything.  -EBUSY while the memory is armed and not released:
 * letting go of its uffds would fill the guest with zeroes.  NULL is 0.
 */
int postcopy_free(postcopy *pc);

/* The last failed call's reason, one line, valid until this thread's next call.  Never NULL. */
const char *postcopy_error(const postcopy *pc);

/* Replaces the vCPU threads, for the statistics of each and the choice of resolver. */
int postcopy_set_vcpus(postcopy *pc, const uint32_t *vcpus, size_t n_vcpus);

/*
 * Adds or removes a region.  A region that was unmapped without being removed is dropped when the
 * library next looks.
 *
 * While a destination's memory is armed: an absent region is added by mapping it and describing it with
 * the same id, guest address, length and page size (-EBUSY: there is no such one); its memory is emptied,
 * and from the return on its faults are served; it stays MADV_DONTFORK for good.  A region is removed before it is unmapped: from the
 * return on nobody touches it; nothing must use it from the call on.  It is absent again then, and if it
 * is added once more it reads as zero.  One at a time (-EBUSY); both wait up to 30 s for the daemon:
 * -ETIMEDOUT (a change that the daemon knows of goes on), -ECONNRESET: it was not added.  All memory is
 * not RELEASED before an absent region whose source has content was added or removed; absent regions
 * are forgotten then.
 * While a source is exported: -EBUSY.
 */
int postcopy_add_region(postcopy *pc, const struct postcopy_region *region);
int postcopy_remove_region(postcopy *pc, const void *address);

/*
 * The calls below wait for the daemon's answer, timeout_ms for it and for the connection together;
 * negative: for ever.  -ETIMEDOUT; -ECONNRESET: the connection went while the answer was awaited.
 */

/* Source: prepares the migration to the daemon at HOST:PORT, where the same VM (by uuid, else by
 * name) waits as a destination.  Returns when that is armed; undone by postcopy_cancel(). */
int postcopy_offer(postcopy *pc, const char *destination, int timeout_ms);

/* Source: the vCPUs are stopped and the memory is final.  Returns when the destination may run. */
int postcopy_seal(postcopy *pc, int timeout_ms);

/* Source: undoes postcopy_offer().  -EBUSY after the seal. */
int postcopy_cancel(postcopy *pc, int timeout_ms);

/* Destination: the vCPUs run, so the stream may go at full speed; one that is not armed becomes a
 * source, for it has its memory.  Source: the vCPUs are about to run. */
int postcopy_running(postcopy *pc, int timeout_ms);

/* Waits until the last event is this one, or one that comes after it (RUNNING or PAUSED for ARMED,
 * SEALED for EXPORTED), or a final one (RELEASED, CANCELLED, FENCED, BROKEN, DONE).  Returns that
 * event, or -ETIMEDOUT.  CONNECTED and DISCONNECTED wait for the connection's state instead. */
int postcopy_wait(postcopy *pc, enum postcopy_event event, int timeout_ms);

#ifdef __cplusplus
}
#endif

#endif
