/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which pages of this process's memory are there, from /proc/self/pagemap.  Nothing is touched.
 */
#ifndef POSTCOPY_QEMU_PAGEMAP_H
#define POSTCOPY_QEMU_PAGEMAP_H

#include <stdint.h>

/* Called for pages that are there: count of them from number first on. */
typedef void PagemapFound(void *user, uint64_t first, uint64_t count);

/* The file's fd, the caller's; or negative errno. */
int pagemap_open(void);

/*
 * Looks at count pages of page_size bytes (a multiple of the host's) from address on, present and
 * swapped out ones alike.  Their numbers count from the page at address.  0 or negative errno.
 */
int pagemap_scan(int fd, uint64_t address, uint64_t page_size, uint64_t count, PagemapFound *found,
                 void *user);

#endif
