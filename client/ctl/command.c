/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/command.h"

#include <string.h>

#include "client/ctl/error.h"
#include "client/operator/daemon.h"

enum { ANSWER_MS = 30 * 1000 };

gboolean command_parse_words(const char *parameters, const char *summary,
                             const GOptionEntry *entries, int argc, char **argv, guint most,
                             char ***ret_words, GError **error)
{
    g_autoptr(GOptionContext) context = g_option_context_new(parameters);
    g_autofree char *command = g_strdup(argv[0]);
    g_autofree char *program = g_strdup_printf("postcopyctl %s", command);
    g_autofree char **words = g_memdup2(argv, sizeof *argv * ((gsize)argc + 1));
    g_autoptr(GError) local = NULL;

    /* The help names the program by argv[0]. */
    g_set_prgname(program);
    g_option_context_set_summary(context, summary);
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &words, &local)) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_USAGE, "%s: %s; see %s --help", command,
                    local->message, program);
        return FALSE;
    }
    if ((guint)argc > most + 1) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_USAGE, "%s does not know what '%s' is for",
                    command, words[most + 1]);
        return FALSE;
    }
    *ret_words = g_strdupv(words + 1);
    return TRUE;
}

gboolean command_parse(const char *parameters, const char *summary, const GOptionEntry *entries,
                       int argc, char **argv, gboolean required, char **ret_argument,
                       GError **error)
{
    g_auto(GStrv) words = NULL;

    if (!command_parse_words(parameters, summary, entries, argc, argv, ret_argument ? 1 : 0, &words,
                             error))
        return FALSE;
    if (required && !words[0]) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_USAGE, "%s needs the name or uuid of a VM",
                    argv[0]);
        return FALSE;
    }
    if (ret_argument)
        *ret_argument = g_strdup(words[0]);
    return TRUE;
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
