/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/command.h"

#include <string.h>

#include "client/ctl/daemon.h"
#include "client/ctl/error.h"

enum { ANSWER_MS = 30 * 1000 };

static gboolean take_argument(const char *command, int argc, char **argv, gboolean required,
                              char **ret_argument, GError **error)
{
    int most = ret_argument ? 2 : 1;

    if (argc > most) {
        g_set_error(error, CTL_ERROR, CTL_ERROR_USAGE, "%s does not know what '%s' is for", command,
                    argv[most]);
        return FALSE;
    }
    if (required && argc < 2) {
        g_set_error(error, CTL_ERROR, CTL_ERROR_USAGE, "%s needs the name or uuid of a VM",
                    command);
        return FALSE;
    }
    if (ret_argument)
        *ret_argument = argc > 1 ? g_strdup(argv[1]) : NULL;
    return TRUE;
}

gboolean command_parse(const char *parameters, const char *summary, const GOptionEntry *entries,
                       int argc, char **argv, gboolean required, char **ret_argument,
                       GError **error)
{
    g_autoptr(GOptionContext) context = g_option_context_new(parameters);
    g_autofree char *command = g_strdup(argv[0]);
    g_autofree char *program = g_strdup_printf("postcopyctl %s", command);
    g_autofree char **words = g_memdup2(argv, sizeof *argv * ((gsize)argc + 1));

    /* The help names the program by argv[0]. */
    g_set_prgname(program);
    g_option_context_set_summary(context, summary);
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &words, error))
        return FALSE;
    return take_argument(command, argc, words, required, ret_argument, error);
}

/* A request about one VM that has nothing to show but that it was done. */
static gboolean run_simple(const char *op, const char *summary, const char *socket, int argc,
                           char **argv, GError **error)
{
    const GOptionEntry entries[] = {{NULL, 0, 0, 0, NULL, NULL, NULL}};
    g_autofree char *vm = NULL;
    g_autoptr(Daemon) daemon = NULL;

    if (!command_parse("VM", summary, entries, argc, argv, TRUE, &vm, error))
        return FALSE;
    daemon = daemon_connect(socket, NULL, error);
    return daemon && daemon_vm_call(daemon, op, vm, ANSWER_MS, error);
}

gboolean command_cancel(const char *socket, int argc, char **argv, GError **error)
{
    return run_simple(
        "cancel", "Undoes the preparation of a migration whose guest has not been switched over.",
        socket, argc, argv, error);
}

gboolean command_abandon(const char *socket, int argc, char **argv, GError **error)
{
    return run_simple(
        "abandon",
        "Gives up a switchover that failed half-way: from then on no destination gets\n"
        "the guest's memory, and the guest may run on the source again.",
        socket, argc, argv, error);
}
