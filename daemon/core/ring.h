/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A data thread's io_uring: its single wait point, for uffds, sockets and a wake-up by others.
 *
 * A ring belongs to the thread that initialised it; ring_wake() alone may be called by any thread.
 * An operation names a RingWatch, which must live until its completion was dispatched.  Nothing is
 * allocated after ring_init().
 */
#ifndef POSTCOPYD_CORE_RING_H
#define POSTCOPYD_CORE_RING_H

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "daemon/core/spin.h"

typedef struct RingWatch RingWatch;
struct RingWatch {
    /* result: the operation's, negative errno if it failed.  On the ring's thread. */
    void (*done)(RingWatch *watch, int result);
    void *owner;
    bool busy; /* an operation is under way */
};

/*
 * What else may come while the ring waits, and the kernel has no part in until it is told to.  Both are called on
 * the ring's thread, and true says that something had come, which was taken care of.  They may remove their own
 * aside from the ring, and no other.
 */
typedef struct RingAside RingAside;
struct RingAside {
    /* While the ring looks before it sleeps; may be called never. */
    bool (*glance)(RingAside *aside);
    /* Before it sleeps: what comes from now on ends an operation of the ring.  If true, it does not sleep. */
    bool (*settle)(RingAside *aside);
    RingAside *next; /* the ring's */
};

typedef struct Ring {
    struct io_uring uring;
    int wake_fd; /* an eventfd, made by the one who may call ring_wake() before the thread starts */
    RingWatch wake;
    void (*woken)(void *owner); /* called on the ring's thread after ring_wake(), once for many */
    bool plain;                 /* a kernel before 6.1: without what makes the others faster */
    bool hurried;               /* the next wait does not sleep */
    RingAside *asides;
    Spin spin; /* looks for completions before it sleeps; off unless initialised */
} Ring;

/* Makes the wake-up end; any thread, before ring_start() and ring_wake(). 0 or negative errno. */
int ring_init(Ring *ring, void (*woken)(void *owner), void *owner);

/* Makes the ring itself; on the thread that will use it.  0 or negative errno. */
int ring_start(Ring *ring, unsigned entries);

/* Ends the ring; operations under way are cancelled, their watches not called. On its thread. */
void ring_stop(Ring *ring);

/* Closes the wake-up end, once nobody can call ring_wake() any more.  Any thread. */
void ring_deinit(Ring *ring);

/* Wakes the ring's thread: its woken() runs afterwards.  What the caller wrote before is seen. */
void ring_wake(Ring *ring);

/*
 * One-shot poll; with exclusive, of all rings that poll this file one is woken for an event.
 * A further event while nobody polls is not lost: a new poll looks first.
 */
void ring_poll(Ring *ring, RingWatch *watch, int fd, unsigned events, bool exclusive);
void ring_receive(Ring *ring, RingWatch *watch, int socket, void *buffer, size_t length);
/* message, its vector and buffers must stay until the completion.  later: nothing can have come yet,
 * so it is not worth a look. */
void ring_receive_message(Ring *ring, RingWatch *watch, int socket, struct msghdr *message,
                          bool later);
/* Reads what a non-blocking file has; result -EAGAIN if the kernel will not wait for it. */
void ring_read(Ring *ring, RingWatch *watch, int fd, void *buffer, size_t length);
void ring_send(Ring *ring, RingWatch *watch, int socket, const void *data, size_t length);

/*
 * Sends what the socket takes at once, with the next ring_wait(), before it waits.  watch is called only
 * if that was not all: with the bytes that went, or a negative errno (-EAGAIN: none did); on a kernel
 * before 6.1 always.  It is not busy meanwhile (there it is); data must stay until ring_wait() returned.
 */
void ring_send_now(Ring *ring, RingWatch *watch, int socket, const void *data, size_t length);

/* The operation under way, if any, ends soon; its watch is still called, with -ECANCELED or what it
 * came to. */
void ring_cancel(Ring *ring, RingWatch *watch);

/* The next wait submits and dispatches, but does not sleep: its caller has something to do. */
void ring_hurry(Ring *ring);

/* An aside stays until it is removed, and must live as long; to remove one that is not there changes nothing. */
void ring_add_aside(Ring *ring, RingAside *aside);
void ring_remove_aside(Ring *ring, RingAside *aside);

/* Submits what is queued, waits for a completion and dispatches all there are; timeout_ms < 0: no
 * time-out.  0 or negative errno, which is fatal for the thread. */
int ring_wait(Ring *ring, int timeout_ms);

#endif
