/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One line a call on stderr, with the journal's priority prefix where systemd reads it.
 * Any thread, but never the fault path.
 */
#ifndef POSTCOPYD_CORE_LOG_H
#define POSTCOPYD_CORE_LOG_H

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
