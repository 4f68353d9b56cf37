/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef POSTCOPY_QEMU_LOG_H
#define POSTCOPY_QEMU_LOG_H

/* Appends a line to the file that POSTCOPY_LOG names; nothing without it.  Any thread. */
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
