/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * postcopyctl's commands.  Each gets the daemon's socket and its own words, the command's name
 * first.  A failure is an error whose message main() prints and whose code is the exit status.
 */
#ifndef POSTCOPYD_CTL_COMMAND_H
#define POSTCOPYD_CTL_COMMAND_H

#include <glib.h>

typedef struct Command {
    const char *name;
    const char *arguments; /* for the help */
    const char *summary;
    gboolean (*run)(const char *socket, int argc, char **argv, GError **error);
    gboolean reports; /* it has printed its error already */
} Command;

gboolean command_status(const char *socket, int argc, char **argv, GError **error);
gboolean command_stats(const char *socket, int argc, char **argv, GError **error);
gboolean command_cancel(const char *socket, int argc, char **argv, GError **error);
gboolean command_abandon(const char *socket, int argc, char **argv, GError **error);
gboolean command_limit(const char *socket, int argc, char **argv, GError **error);
gboolean command_jobs(const char *socket, int argc, char **argv, GError **error);
gboolean command_check(const char *socket, int argc, char **argv, GError **error);
gboolean command_enable(const char *socket, int argc, char **argv, GError **error);
gboolean command_disable(const char *socket, int argc, char **argv, GError **error);
gboolean command_migrate(const char *socket, int argc, char **argv, GError **error);

/*
 * Parses a command's own options and takes one positional argument, which the caller owns:
 * *ret_argument stays NULL if it is optional (required FALSE) and missing.  ret_argument NULL: the
 * command takes none.
 */
gboolean command_parse(const char *parameters, const char *summary, const GOptionEntry *entries,
                       int argc, char **argv, gboolean required, char **ret_argument,
                       GError **error);

/* The same with up to so many positional arguments, none of them required. */
gboolean command_parse_words(const char *parameters, const char *summary,
                             const GOptionEntry *entries, int argc, char **argv, guint most,
                             char ***ret_words, GError **error);

#endif
