/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/stats.h"

#include <stdio.h>
#include <unistd.h>

#include "client/ctl/command.h"
#include "client/ctl/error.h"
#include "client/ctl/format.h"
#include "client/operator/daemon.h"
#include "protocol/qmp/json.h"

enum { ANSWER_MS = 30 * 1000 };

#define ONCE           (-G_MAXDOUBLE)
#define INTERVAL_MIN_S 0.05
#define INTERVAL_MAX_S 86400.0

typedef struct StatsOptions {
    const char *vm;
    gboolean json;
    double interval_s; /* ONCE: no more often */
} StatsOptions;

static JsonNode *ask(Daemon *daemon, const char *vm, GError **error)
{
    JsonObject *request = json_object_new();

    if (vm)
        json_object_set_string_member(request, "vm", vm);
    return daemon_call(daemon, "stats", request, -1, ANSWER_MS, error);
}

static void print_page(const StatsOptions *options, JsonNode *answer)
{
    g_autofree char *text =
        options->json ? node_line(answer) : stats_render(node_object(answer), format_is_ascii());

    if (options->json)
        puts(text);
    else if (options->interval_s > 0 && isatty(STDOUT_FILENO))
        printf("\033[H\033[2J%s", text);
    else
        printf("%s%s", text, options->interval_s > 0 ? "\n" : "");
    fflush(stdout);
}

/* Who watches may wait for it. */
static gboolean is_known(const StatsOptions *options, JsonObject *answer, GError **error)
{
    if (!options->vm || options->interval_s > 0 ||
        element_count(member_array(answer, "sessions")) > 0 ||
        element_count(member_array(answer, "imports")) > 0 ||
        element_count(member_array(answer, "exports")) > 0 ||
        element_count(member_array(answer, "past")) > 0)
        return TRUE;
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                "stats: no VM '%s' is connected, arriving or leaving here: see postcopyctl status",
                options->vm);
    return FALSE;
}

/* Ctrl-C is how watching ends, so it is no failure. */
static gboolean print_pages(const StatsOptions *options, Daemon *daemon, const Interrupt *interrupt,
                            GError **error)
{
    g_autoptr(GError) local = NULL;
    gint64 next = g_get_monotonic_time();

    do {
        g_autoptr(JsonNode) answer = ask(daemon, options->vm, &local);

        if (!answer)
            break;
        if (!is_known(options, node_object(answer), &local))
            break;
        print_page(options, answer);
        if (options->interval_s == ONCE)
            break;
        next += (gint64)(options->interval_s * G_USEC_PER_SEC);
    } while (wait_until(interrupt, next, &local));
    if (!local || g_error_matches(local, CALL_ERROR, CALL_ERROR_INTERRUPTED))
        return TRUE;
    g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}

static gboolean run(const StatsOptions *options, const char *socket, GError **error)
{
    Interrupt interrupt;
    g_autoptr(Daemon) daemon = NULL;
    gboolean done;

    if (!interrupt_init(&interrupt, error))
        return FALSE;
    daemon = daemon_connect(socket, &interrupt, error);
    done = daemon && print_pages(options, daemon, &interrupt, error);
    interrupt_deinit(&interrupt);
    return done;
}

static gboolean is_number(const char *word)
{
    return word && (g_ascii_isdigit(*word) || *word == '.');
}

/* "--watch" may be followed by a number or stand alone, which GLib's options do not know. */
static char **complete_watch(int *argc, char **argv)
{
    GPtrArray *words = g_ptr_array_new();

    for (int i = 0; i < *argc; i++) {
        if (g_strcmp0(argv[i], "--watch") != 0)
            g_ptr_array_add(words, g_strdup(argv[i]));
        else if (is_number(argv[i + 1]))
            g_ptr_array_add(words, g_strconcat("--watch=", argv[++i], NULL));
        else
            g_ptr_array_add(words, g_strdup("--watch=1"));
    }
    *argc = (int)words->len;
    g_ptr_array_add(words, NULL);
    return (char **)g_ptr_array_free(words, FALSE);
}

static gboolean check_interval(double interval_s, GError **error)
{
    if (interval_s == ONCE || (interval_s >= INTERVAL_MIN_S && interval_s <= INTERVAL_MAX_S))
        return TRUE;
    g_set_error(error, CALL_ERROR, CALL_ERROR_USAGE, "--watch takes %g to %g seconds",
                INTERVAL_MIN_S, INTERVAL_MAX_S);
    return FALSE;
}

gboolean command_stats(const char *socket, int argc, char **argv, GError **error)
{
    StatsOptions options = {.interval_s = ONCE};
    const GOptionEntry entries[] = {
        {"watch", 0, 0, G_OPTION_ARG_DOUBLE, &options.interval_s,
         "go on, every second or every so many", "[SECONDS]"},
        {"json", 0, 0, G_OPTION_ARG_NONE, &options.json,
         "print the daemon's answer as it is, one document a line", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    g_auto(GStrv) words = complete_watch(&argc, argv);
    g_autofree char *vm = NULL;

    if (!command_parse("[VM]", "Shows the figures of imports and exports.", entries, argc, words,
                       FALSE, &vm, error) ||
        !check_interval(options.interval_s, error))
        return FALSE;
    options.vm = vm;
    return run(&options, socket, error);
}
