/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/lib/uffd.h"
#include "client/qemu/log.h"
#include "client/qemu/pagemap.h"
#include "client/qemu/route.h"

/*
 * Readers: QEMU's threads, for one ioctl(), which may take long.  Writers: whoever makes, opens or frees a
 * Listen; they go first, as there is always some reader.
 */
static pthread_rwlock_t lock = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
static Listen *current;
static int proxy_fd = -1;    /* atomic: current->proxy while it is open, as far as we know */
static uint64_t proxy_inode; /* atomic: its own among all sockets; set before proxy_fd */
static bool planned;         /* atomic: listen_is_planned() */

static void set_planned(bool is)
{
    __atomic_store_n(&planned, is, __ATOMIC_RELEASE);
}

/* A pair for QEMU and us; non-blocking as the userfaultfd that it stands for. */
static bool make_proxy(Listen *listen, int native)
{
    struct stat status;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return false;
    if (fstat(pair[0], &status) < 0) {
        close(pair[0]);
        close(pair[1]);
        return false;
    }
    __atomic_store_n(&proxy_inode, status.st_ino, __ATOMIC_RELEASE);
    listen->proxy = pair[0];
    listen->native = native;
    __atomic_store_n(&proxy_fd, pair[0], __ATOMIC_RELEASE);
    __atomic_store_n(&listen->peer, pair[1], __ATOMIC_RELEASE);
    return true;
}

int listen_opened(int uffd, int flags)
{
    int given = uffd;

    pthread_rwlock_wrlock(&lock);
    if (current && current->proxy == uffd) {
        /* The kernel gave the number out again: QEMU has closed the proxy. */
        current->proxy = -1;
        __atomic_store_n(&proxy_fd, -1, __ATOMIC_RELEASE);
    }
    /* Those that QEMU only tries out are blocking ones. */
    if ((flags & O_NONBLOCK) && current && current->peer < 0 &&
        !__atomic_load_n(&current->lost, __ATOMIC_ACQUIRE) && make_proxy(current, uffd))
        given = current->proxy;
    pthread_rwlock_unlock(&lock);
    return given;
}

/*
 * Once QEMU has closed the proxy its number may be given to a userfaultfd that came over a socket, from a
 * vhost-user back end, before our thread hears of the close.
 */
static bool is_placing(unsigned long request)
{
    return (uint32_t)request == UFFDIO_COPY || (uint32_t)request == UFFDIO_ZEROPAGE;
}

/* Asked once a page: QEMU places pages by its own userfaultfd alone, so for that the number will do. */
bool listen_places(int fd, unsigned long request)
{
    return is_placing(request) && fd >= 0 && fd == __atomic_load_n(&proxy_fd, __ATOMIC_ACQUIRE);
}

bool listen_owns(int fd)
{
    int error = errno;
    struct stat status;
    bool owns;

    if (fd < 0 || fd != __atomic_load_n(&proxy_fd, __ATOMIC_ACQUIRE))
        return false;
    owns = fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode) &&
           status.st_ino == __atomic_load_n(&proxy_inode, __ATOMIC_ACQUIRE);
    errno = error;
    return owns;
}

bool listen_is_planned(void)
{
    return __atomic_load_n(&planned, __ATOMIC_ACQUIRE);
}

Listen *listen_hold(void)
{
    pthread_rwlock_rdlock(&lock);
    if (!current)
        pthread_rwlock_unlock(&lock);
    return current;
}

void listen_release(void)
{
    pthread_rwlock_unlock(&lock);
}

Listen *listen_new(Plan *plan, int wake)
{
    Listen *listen = calloc(1, sizeof *listen);

    if (!listen)
        return NULL;
    *listen = (Listen){.plan = plan,
                       .wake = wake,
                       .proxy = -1,
                       .native = -1,
                       .peer = -1,
                       .pagemap = pagemap_open()};
    pthread_rwlock_wrlock(&lock);
    current = listen;
    set_planned(true);
    pthread_rwlock_unlock(&lock);
    return listen;
}

bool listen_withdraw(Listen *listen)
{
    bool opened;

    __atomic_store_n(&listen->lost, true, __ATOMIC_SEQ_CST);
    /* Once QEMU has the proxy nothing undoes that: the faults it waits for must not wait for its COPY. */
    if (__atomic_load_n(&listen->peer, __ATOMIC_SEQ_CST) >= 0)
        return true;
    pthread_rwlock_wrlock(&lock);
    opened = listen->peer >= 0;
    pthread_rwlock_unlock(&lock);
    return opened;
}

/* The last one of a registration that failed midway, or of a QEMU that closed its fd just so. */
static void unregister_all(Plan *plan)
{
    for (uint32_t i = 0; i < plan->n_segments; i++) {
        Segment *segment = &plan->segments[i];
        if (__atomic_load_n(&segment->registered, __ATOMIC_ACQUIRE))
            uffd_unregister(segment->uffd, (void *)(uintptr_t)segment->start,
                            segment->end - segment->start);
        __atomic_store_n(&segment->registered, false, __ATOMIC_RELEASE);
    }
}

void listen_free(Listen *listen)
{
    if (!listen)
        return;
    pthread_rwlock_wrlock(&lock);
    current = NULL;
    set_planned(false);
    if (listen->proxy >= 0)
        __atomic_store_n(&proxy_fd, -1, __ATOMIC_RELEASE);
    pthread_rwlock_unlock(&lock);
    /* The daemon may hold the uffds as well, so closing ours would let go of nothing. */
    unregister_all(listen->plan);
    if (listen->native >= 0)
        close(listen->native);
    if (listen->peer >= 0)
        close(listen->peer);
    if (listen->pagemap >= 0)
        close(listen->pagemap);
    plan_free(listen->plan);
    free(listen);
}

uint32_t listen_registered(Listen *listen)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < listen->plan->n_segments; i++)
        n += __atomic_load_n(&listen->plan->segments[i].registered, __ATOMIC_ACQUIRE);
    return n;
}

void listen_wake_all(Listen *listen)
{
    for (uint32_t i = 0; i < listen->plan->n_segments; i++) {
        const Segment *segment = &listen->plan->segments[i];
        if (__atomic_load_n(&segment->registered, __ATOMIC_ACQUIRE))
            uffd_wake_range(segment->uffd, (void *)(uintptr_t)segment->start,
                            segment->end - segment->start);
    }
}

void listen_others_wait(void)
{
    Listen *listen = listen_hold();

    if (!listen)
        return;
    hold_never(&listen->hold);
    listen_release();
}

int listen_ioctl(int fd, unsigned long request, void *argument)
{
    Listen *listen = listen_hold();
    int result, error;

    if (!listen || listen->proxy != fd || (!is_placing(request) && !listen_owns(fd))) {
        if (listen)
            listen_release();
        return ioctl(fd, request, argument); /* QEMU closed the proxy just now */
    }
    result = route_ioctl(listen, request, argument);
    error = errno;
    if (listen_is_planned() && __atomic_load_n(&listen->complete, __ATOMIC_ACQUIRE))
        set_planned(false);
    listen_release();
    errno = error;
    return result;
}
