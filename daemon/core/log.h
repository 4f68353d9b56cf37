/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One line a call on stderr, with the journal's priority prefix where systemd reads it.
 * Any thread, but never the fault path.
 */
#ifndef POSTCOPYD_CORE_LOG_H
#define POSTCOPYD_CORE_LOG_H

#include <stdbool.h>
#include <stdint.h>

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* For a line that others can provoke as often as they like. Zero at first; of one thread. */
typedef struct LogLimit {
    uint64_t next_ns;
} LogLimit;

/* True if such a line may be logged now: one in ten seconds. */
bool log_limit_allows(LogLimit *limit);

#endif
