/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/hook/time_limit.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

enum { SPARE_MS = 200 };

/* For the signal's handler, which can be passed nothing. */
static volatile sig_atomic_t status_then;
static const char *volatile line_then;
static gint64 end_us;

static void on_alarm(int signal_number)
{
    const char *line = line_then;
    ssize_t written;

    (void)signal_number;
    written = write(STDERR_FILENO, line, strlen(line));
    (void)written;
    _exit(status_then);
}

void time_limit_set(guint seconds, int status, const char *line)
{
    struct sigaction action = {.sa_handler = on_alarm};

    alarm(0);
    status_then = status;
    line_then = line;
    end_us = g_get_monotonic_time() + (gint64)seconds * G_USEC_PER_SEC;
    sigaction(SIGALRM, &action, NULL);
    alarm(seconds);
}

void time_limit_end(void)
{
    alarm(0);
}

gint64 time_limit_left(void)
{
    return MAX((end_us - g_get_monotonic_time()) / 1000 - SPARE_MS, 1);
}
