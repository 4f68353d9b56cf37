/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Where QEMU's own messages go, and once: nothing else of it depends on the log. */
static void complain(const char *path, int error)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;

    if (!atomic_flag_test_and_set(&told))
        fprintf(stderr, "postcopy: POSTCOPY_LOG=%s cannot be written: %s\n", path,
                strerrordesc_np(error));
}

/* Opened for every line: events are rare, and QEMU keeps no fd of ours for it. */
static void append(const char *text, int length)
{
    const char *path = getenv("POSTCOPY_LOG");
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;

    if (fd < 0) {
        if (path)
            complain(path, errno);
        return;
    }
    if (write(fd, text, (size_t)length) < 0) {
        /* There is nobody to tell. */
    }
    close(fd);
}

void log_line(const char *format, ...)
{
    char text[1400];
    struct timespec now;
    va_list arguments;
    int used, more;

    clock_gettime(CLOCK_MONOTONIC, &now);
    used = snprintf(text, sizeof text, "%lld.%06ld %d ", (long long)now.tv_sec, now.tv_nsec / 1000,
                    (int)getpid());
    va_start(arguments, format);
    more = vsnprintf(text + used, sizeof text - (size_t)used - 1, format, arguments);
    va_end(arguments);
    if (more < 0)
        return;
    used += more;
    if (used > (int)sizeof text - 2)
        used = (int)sizeof text - 2;
    text[used++] = '\n';
    append(text, used);
}
