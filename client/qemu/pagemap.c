/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

enum { BATCH = 1024 };

/* Bits of an entry; the kernel's Documentation/admin-guide/mm/pagemap.rst. */
#define PRESENT (UINT64_C(1) << 63)
#define SWAPPED (UINT64_C(1) << 62)

int pagemap_open(void)
{
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

/* The entries of n host pages from this number on.  0 or negative errno. */
static int read_entries(int fd, uint64_t number, uint64_t *entries, uint64_t n)
{
    ssize_t got = pread(fd, entries, n * sizeof *entries, (off_t)(number * sizeof *entries));

    if (got < 0)
        return -errno;
    return (uint64_t)got == n * sizeof *entries ? 0 : -EIO;
}

int pagemap_scan(int fd, uint64_t address, uint64_t page_size, uint64_t count, PagemapFound *found,
                 void *user)
{
    uint64_t host_page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t stride = page_size / host_page;
    uint64_t run = 0;
    uint64_t entries[BATCH];

    /* A large page is there as a whole: its first entry tells. */
    for (uint64_t page = 0, batch; page < count; page += batch) {
        batch = stride > 1 ? 1 : count - page < BATCH ? count - page : BATCH;
        int error = read_entries(fd, address / host_page + page * stride, entries, batch);
        if (error)
            return error;
        for (uint64_t i = 0; i < batch; i++) {
            if (entries[i] & (PRESENT | SWAPPED)) {
                run++;
            } else if (run) {
                found(user, page + i - run, run);
                run = 0;
            }
        }
    }
    if (run)
        found(user, count - run, run);
    return 0;
}
