/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/core/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "daemon/core/clock.h"

#define LIMIT_NS UINT64_C(10000000000)

static void log_line(int priority, const char *word, const char *format, va_list arguments)
    __attribute__((format(printf, 3, 0)));

/* One write a line: lines of different threads do not mix. */
static void log_line(int priority, const char *word, const char *format, va_list arguments)
{
    char line[2048];
    size_t used = 0;
    int written;

    if (getenv("JOURNAL_STREAM"))
        used = (size_t)snprintf(line, sizeof line, "<%d>", priority);
    used += (size_t)snprintf(line + used, sizeof line - used, "postcopyd: %s", word);
    written = vsnprintf(line + used, sizeof line - used - 1, format, arguments);
    if (written > 0)
        used += (size_t)written;
    if (used > sizeof line - 2)
        used = sizeof line - 2;
    line[used++] = '\n';
    if (write(STDERR_FILENO, line, used) < 0)
        return; /* nobody is left to tell */
}

void log_error(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    log_line(LOG_ERR, "error: ", format, arguments);
    va_end(arguments);
}

void log_warning(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    log_line(LOG_WARNING, "warning: ", format, arguments);
    va_end(arguments);
}

void log_info(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    log_line(LOG_INFO, "", format, arguments);
    va_end(arguments);
}

bool log_limit_allows(LogLimit *limit)
{
    uint64_t now = clock_ns();

    if (now < limit->next_ns)
        return false;
    limit->next_ns = now + LIMIT_NS;
    return true;
}
