/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The daemon's settings: built-in values, then the config file, then the command line. */
#ifndef POSTCOPYD_CONFIG_H
#define POSTCOPYD_CONFIG_H

#include <glib.h>

#include "daemon/control/settings.h"

/* What the command line alone says. */
typedef struct CommandLine {
    gboolean show_version;
    gboolean check_only; /* read the configuration, say what is wrong, exit */
    char *file;          /* check_only: the config file that was read, or NULL */
    char *warning;       /* a line about what is allowed, and is in vain; or NULL */
} CommandLine;

/*
 * Reads argv and the config file (--config, else the installed one if it exists).
 * FALSE with one line in error: an unknown option, group or key, a value out of range; with --check also what a
 * daemon starts with all the same, as guests may wait for it, and refuses migrations for: else that is a warning.
 */
gboolean config_load(int *argc, char ***argv, Settings *ret_settings, CommandLine *ret_command,
                     GError **error);

#endif
