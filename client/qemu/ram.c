/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/ram.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

enum {
    SHARED_MIN = 1 << 20,
    PRIVATE_MIN = 16 << 20, /* firmware and the like are smaller */
    FD_MIN = 100,           /* out of the way of fds whose numbers QEMU's user chose */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static RamBlock blocks[RAM_MAX];
static size_t n_blocks;
static bool has_private;
static unsigned changes, changes_seen;

/* A memfd of QEMU's memory backend, or a file of a file system that is memory; not just any memfd,
 * of which displays and others make their own. */
static bool is_ram_file(int fd, const struct statfs *fs)
{
    static const char backend[] = "/memfd:memory-backend-memfd";
    char path[64], link[64];
    struct stat st;
    ssize_t length;

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return false;
    if (fs->f_type != TMPFS_MAGIC && fs->f_type != HUGETLBFS_MAGIC)
        return false;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    length = readlink(path, link, sizeof link - 1);
    if (length <= 0)
        return false;
    link[length] = '\0';
    return strncmp(link, "/memfd:", 7) != 0 || strncmp(link, backend, sizeof backend - 1) == 0;
}

/* A block that is mapped over an older one replaces it. */
static void forget_overlapping(const RamBlock *block)
{
    const uint8_t *start = block->address;

    for (size_t i = n_blocks; i-- > 0;) {
        const uint8_t *other = blocks[i].address;
        if (other < start + block->length && start < other + blocks[i].length) {
            close(blocks[i].fd);
            blocks[i] = blocks[--n_blocks];
        }
    }
}

static bool note_shared(void *address, size_t length, int fd, off_t offset)
{
    RamBlock block = {.address = address, .length = length, .fd_offset = (uint64_t)offset};
    bool noted = false;
    struct statfs fs;

    if (fstatfs(fd, &fs) < 0 || !is_ram_file(fd, &fs))
        return false;
    block.page_size =
        fs.f_type == HUGETLBFS_MAGIC ? (uint64_t)fs.f_bsize : (uint64_t)sysconf(_SC_PAGESIZE);
    block.fd = fcntl(fd, F_DUPFD_CLOEXEC, FD_MIN);
    if (block.fd < 0)
        return false;
    pthread_mutex_lock(&lock);
    forget_overlapping(&block);
    if (n_blocks < RAM_MAX) {
        blocks[n_blocks++] = block;
        noted = true;
        changes++;
        pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&lock);
    if (!noted)
        close(block.fd);
    return noted;
}

static bool note_private(void)
{
    bool first;

    pthread_mutex_lock(&lock);
    first = !has_private;
    has_private = true;
    if (first) {
        changes++;
        pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&lock);
    return first;
}

bool ram_note(void *address, size_t length, int flags, int fd, off_t offset)
{
    if (flags & MAP_SHARED)
        return fd >= 0 && length >= SHARED_MIN && note_shared(address, length, fd, offset);
    /* QEMU reserves address space for RAM first, and then maps over it. */
    return (flags & MAP_FIXED) && length >= PRIVATE_MIN && note_private();
}

bool ram_is_private(void)
{
    bool is;

    pthread_mutex_lock(&lock);
    is = has_private;
    pthread_mutex_unlock(&lock);
    return is;
}

bool ram_wait(int timeout_ms)
{
    struct timespec deadline;
    int error = 0;

    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += timeout_ms / 1000;
    deadline.tv_nsec += timeout_ms % 1000 * 1000000L;
    if (deadline.tv_nsec >= 1000000000L) {
        deadline.tv_sec++;
        deadline.tv_nsec -= 1000000000L;
    }
    pthread_mutex_lock(&lock);
    while (changes == changes_seen && !error)
        error = timeout_ms < 0
                    ? pthread_cond_wait(&changed, &lock)
                    : pthread_cond_clockwait(&changed, &lock, CLOCK_MONOTONIC, &deadline);
    changes_seen = changes;
    pthread_mutex_unlock(&lock);
    return error != ETIMEDOUT;
}

size_t ram_take(RamBlock ret_blocks[RAM_MAX])
{
    size_t n;

    pthread_mutex_lock(&lock);
    n = n_blocks;
    memcpy(ret_blocks, blocks, n * sizeof blocks[0]);
    n_blocks = 0;
    pthread_mutex_unlock(&lock);
    return n;
}

void ram_put_back(const RamBlock *block)
{
    bool kept;

    pthread_mutex_lock(&lock);
    kept = n_blocks < RAM_MAX;
    if (kept)
        blocks[n_blocks++] = *block;
    pthread_mutex_unlock(&lock);
    if (!kept)
        close(block->fd);
}
