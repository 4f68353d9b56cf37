/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/core/ring.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "daemon/core/clock.h"
#include "protocol/limits.h"

#ifdef __SANITIZE_THREAD__
#define RING_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RING_TSAN 1
#endif
#endif

/*
 * The kernel orders a wake-up against what the waker wrote before; ThreadSanitizer does not see
 * through the ring, so it is told here, and only here.
 */
#ifdef RING_TSAN
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#define hand_over_release(ring) __tsan_release(ring)
#define hand_over_acquire(ring) __tsan_acquire(ring)
#else
#define hand_over_release(ring) ((void)(ring))
#define hand_over_acquire(ring) ((void)(ring))
#endif

/* All that can wait at once may end at once: a uffd of each shard, and the little there is besides. */
enum { RING_COMPLETIONS = 2 * LIMIT_SHARDS };

static void wake_done(RingWatch *watch, int result)
{
    Ring *ring = (Ring *)((char *)watch - offsetof(Ring, wake));
    uint64_t count;

    (void)result;
    if (read(ring->wake_fd, &count, sizeof count) > 0)
        hand_over_acquire(ring);
    ring_poll(ring, &ring->wake, ring->wake_fd, POLLIN, false);
    ring->woken(watch->owner);
}

int ring_init(Ring *ring, void (*woken)(void *owner), void *owner)
{
    *ring = (Ring){.woken = woken, .wake = {.done = wake_done, .owner = owner}};
    ring->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return ring->wake_fd < 0 ? -errno : 0;
}

int ring_start(Ring *ring, unsigned entries)
{
    /* One task submits and reaps, and completions run when it asks: no interrupts in between. */
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_CQSIZE,
        .cq_entries = RING_COMPLETIONS,
    };
    int error = io_uring_queue_init_params(entries, &ring->uring, &params);

    ring->plain = error == -EINVAL;
    if (ring->plain) { /* before Linux 6.1 */
        params =
            (struct io_uring_params){.flags = IORING_SETUP_CQSIZE, .cq_entries = RING_COMPLETIONS};
        error = io_uring_queue_init_params(entries, &ring->uring, &params);
    }
    if (error)
        return error;
    io_uring_register_ring_fd(&ring->uring); /* only saves time; before Linux 5.18 it fails */
    ring_poll(ring, &ring->wake, ring->wake_fd, POLLIN, false);
    return 0;
}

void ring_stop(Ring *ring)
{
    io_uring_queue_exit(&ring->uring);
}

void ring_deinit(Ring *ring)
{
    if (ring->wake_fd >= 0)
        close(ring->wake_fd);
    ring->wake_fd = -1;
}

void ring_wake(Ring *ring)
{
    uint64_t one = 1;

    hand_over_release(ring);
    while (write(ring->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

/* The submission queue only fills up when many operations start at once: then it is flushed. */
static struct io_uring_sqe *take_entry(Ring *ring, RingWatch *watch)
{
    struct io_uring_sqe *entry;

    while (!(entry = io_uring_get_sqe(&ring->uring)))
        io_uring_submit(&ring->uring);
    watch->busy = true;
    return entry;
}

void ring_poll(Ring *ring, RingWatch *watch, int fd, unsigned events, bool exclusive)
{
    struct io_uring_sqe *entry = take_entry(ring, watch);

    io_uring_prep_poll_add(entry, fd, events);
    if (exclusive)
        entry->poll32_events |= EPOLLEXCLUSIVE;
    io_uring_sqe_set_data(entry, watch);
}

void ring_receive(Ring *ring, RingWatch *watch, int socket, void *buffer, size_t length)
{
    struct io_uring_sqe *entry = take_entry(ring, watch);

    io_uring_prep_recv(entry, socket, buffer, length, 0);
    io_uring_sqe_set_data(entry, watch);
}

void ring_receive_message(Ring *ring, RingWatch *watch, int socket, struct msghdr *message,
                          bool later)
{
    struct io_uring_sqe *entry = take_entry(ring, watch);

    io_uring_prep_recvmsg(entry, socket, message, 0);
    if (later && !ring->plain)
        entry->ioprio |= IORING_RECVSEND_POLL_FIRST;
    io_uring_sqe_set_data(entry, watch);
}

void ring_read(Ring *ring, RingWatch *watch, int fd, void *buffer, size_t length)
{
    struct io_uring_sqe *entry = take_entry(ring, watch);

    io_uring_prep_read(entry, fd, buffer, (unsigned)length, 0);
    io_uring_sqe_set_data(entry, watch);
}

void ring_send(Ring *ring, RingWatch *watch, int socket, const void *data, size_t length)
{
    struct io_uring_sqe *entry = take_entry(ring, watch);

    io_uring_prep_send(entry, socket, data, length, MSG_NOSIGNAL | MSG_WAITALL);
    io_uring_sqe_set_data(entry, watch);
}

/*
 * With MSG_DONTWAIT the kernel does not keep what it cannot take at once, and with MSG_WAITALL it fails
 * what it took in part: either way nothing of it is left when the submission returns.
 */
void ring_send_now(Ring *ring, RingWatch *watch, int socket, const void *data, size_t length)
{
    struct io_uring_sqe *entry;

    if (ring->plain) {
        ring_send(ring, watch, socket, data, length);
        return;
    }
    entry = take_entry(ring, watch);
    io_uring_prep_send(entry, socket, data, length, MSG_NOSIGNAL | MSG_WAITALL | MSG_DONTWAIT);
    entry->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data(entry, watch);
    watch->busy = false;
}

void ring_cancel(Ring *ring, RingWatch *watch)
{
    RingWatch unused = {0};
    struct io_uring_sqe *entry;

    if (!watch->busy)
        return;
    entry = take_entry(ring, &unused);
    io_uring_prep_cancel(entry, watch, 0);
    io_uring_sqe_set_data(entry, NULL); /* how the cancelling fared is of no use */
}

static void dispatch(Ring *ring)
{
    struct io_uring_cqe *cqe;

    while (io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
        RingWatch *watch = io_uring_cqe_get_data(cqe);
        int result = cqe->res;

        io_uring_cqe_seen(&ring->uring, cqe);
        if (!watch)
            continue;
        watch->busy = false;
        watch->done(watch, result);
    }
}

/* Whether a completion is there, or the kernel would make one if asked; no system call. */
static bool has_work(const Ring *ring)
{
    return io_uring_cq_ready(&ring->uring) > 0 ||
           (__atomic_load_n(ring->uring.sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_TASKRUN);
}

void ring_hurry(Ring *ring)
{
    ring->hurried = true;
}

void ring_add_aside(Ring *ring, RingAside *aside)
{
    aside->next = ring->asides;
    ring->asides = aside;
}

void ring_remove_aside(Ring *ring, RingAside *aside)
{
    RingAside **at = &ring->asides;

    while (*at && *at != aside)
        at = &(*at)->next;
    if (*at)
        *at = aside->next;
}

/* Each has its turn, also where one before it found something. */
static bool ask_asides(Ring *ring, bool to_sleep)
{
    bool found = false;

    for (RingAside *aside = ring->asides, *next; aside; aside = next) {
        next = aside->next;
        found |= to_sleep ? aside->settle(aside) : aside->glance(aside);
    }
    return found;
}

/* True: something came. */
static bool look(Ring *ring, uint64_t budget)
{
    uint64_t until = clock_ns() + budget;
    bool found;

    if (io_uring_submit(&ring->uring) < 0 || io_uring_sq_ready(&ring->uring) > 0)
        return false;
    while (!(found = has_work(ring) || ask_asides(ring, false) || ring->hurried) &&
           clock_ns() < until)
        for (unsigned i = 0; i < 32 && !has_work(ring); i++)
            spin_relax();
    spin_learn(&ring->spin, found);
    return found;
}

/* Submits what is queued, and waits for a completion. 0 or more, or negative errno. */
static int sleep_for(Ring *ring, int most_ms)
{
    struct __kernel_timespec timeout = {
        .tv_sec = most_ms / 1000,
        .tv_nsec = (long long)(most_ms % 1000) * 1000000,
    };
    struct io_uring_cqe *cqe;

    if (most_ms < 0)
        return io_uring_submit_and_wait(&ring->uring, 1);
    return io_uring_submit_and_wait_timeout(&ring->uring, &cqe, 1, &timeout, NULL);
}

/* Who could have looked and did not learns whether that would have paid. */
static int sleep_and_learn(Ring *ring, int most_ms, uint64_t looked_ns)
{
    bool learns = most_ms != 0 && looked_ns == 0 && ring->spin.most_ns > 0;
    uint64_t since = learns ? clock_ns() : 0;
    int result = sleep_for(ring, most_ms);

    if (learns)
        spin_slept(&ring->spin, clock_ns() - since);
    return result;
}

/* The kernel is asked for what it has only if it has something: all of it may have come aside. */
static int take_found(Ring *ring)
{
    return has_work(ring) ? io_uring_get_events(&ring->uring) : 0;
}

int ring_wait(Ring *ring, int timeout_ms)
{
    bool sleeps = timeout_ms != 0 && !ring->hurried;
    uint64_t budget = sleeps ? spin_budget(&ring->spin) : 0;
    int result;

    if (budget > 0 && look(ring, budget)) {
        result = take_found(ring);
    } else {
        /* Who settles may find that its owner has something to do. */
        sleeps = sleeps && !ask_asides(ring, true) && !ring->hurried;
        result = sleep_and_learn(ring, sleeps ? timeout_ms : 0, budget);
    }
    ring->hurried = false;
    /* What the kernel did not take is not left over: who asked to send it may use its memory again. */
    while ((result >= 0 || result == -EAGAIN || result == -EBUSY) &&
           io_uring_sq_ready(&ring->uring) > 0) {
        dispatch(ring);
        result = io_uring_submit(&ring->uring);
    }
    if (result < 0 && result != -EINTR && result != -ETIME && result != -EAGAIN && result != -EBUSY)
        return result;
    dispatch(ring);
    return 0;
}
