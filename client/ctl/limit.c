/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdio.h>

#include "client/ctl/command.h"
#include "client/ctl/error.h"
#include "client/ctl/format.h"
#include "client/operator/daemon.h"
#include "protocol/qmp/json.h"
#include "protocol/rate_text.h"

enum { ANSWER_MS = 30 * 1000 };

/* What the words ask for. */
typedef struct LimitRequest {
    const char *vm; /* NULL: the host */
    gboolean set;
    guint64 bytes_per_s;
} LimitRequest;

static gboolean parse_rate(const char *text, guint64 *ret_rate, GError **error)
{
    uint64_t rate;

    if (rate_from_text(text, &rate)) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_USAGE, "limit: '%s' is no rate: %s", text,
                    RATE_TEXT);
        return FALSE;
    }
    *ret_rate = rate;
    return TRUE;
}

/* A single word is a rate if it can be one, or looks as if it was meant to be. */
static gboolean parse_words(char **words, guint n, LimitRequest *ret_request, GError **error)
{
    uint64_t rate;

    *ret_request = (LimitRequest){.vm = n == 2 ? words[0] : NULL, .set = n == 2};
    if (n == 2)
        return parse_rate(words[1], &ret_request->bytes_per_s, error);
    if (n == 1) {
        ret_request->set = rate_from_text(words[0], &rate) == 0;
        if (ret_request->set)
            ret_request->bytes_per_s = rate;
        else
            ret_request->vm = words[0];
    }
    return TRUE;
}

static JsonNode *ask(Daemon *daemon, const LimitRequest *request, GError **error)
{
    JsonObject *object = json_object_new();

    if (request->vm)
        json_object_set_string_member(object, "vm", request->vm);
    if (request->set)
        json_object_set_int_member(object, "bytes_per_s", (gint64)request->bytes_per_s);
    return daemon_call(daemon, "limit", object, -1, ANSWER_MS, error);
}

static void set_usage(const char *text, GError **error)
{
    g_clear_error(error);
    g_set_error(error, CALL_ERROR, CALL_ERROR_USAGE,
                "limit: '%s' is no rate: %s; and no VM of that name arrives here", text, RATE_TEXT);
}

/* The daemon knows no VM of that name: was it meant to be a rate? */
static void explain(const LimitRequest *request, GError **error)
{
    if (!request->set && request->vm && error &&
        g_error_matches(*error, CALL_ERROR, CALL_ERROR_REFUSED) &&
        (g_ascii_isdigit(request->vm[0]) || request->vm[0] == '-'))
        set_usage(request->vm, error);
}

static char *rate_text(guint64 bytes_per_s)
{
    g_autofree char *bytes = format_bytes(bytes_per_s);

    return bytes_per_s ? g_strconcat(bytes, "/s", NULL) : g_strdup("none");
}

static void print_limits(JsonObject *answer)
{
    g_autoptr(Table) table = table_new((const char *const[]){"VM", ">LIMIT", ">SHARE NOW", NULL});
    JsonArray *vms = member_array(answer, "vms");
    g_autofree char *host = rate_text((guint64)member_int(answer, "limit_bytes_s"));
    g_autofree char *each = rate_text((guint64)member_int(answer, "vm_limit_bytes_s"));
    g_autofree char *rendered = NULL;

    printf("host: %s; a new VM: %s\n", host, each);
    for (guint i = 0; i < element_count(vms); i++) {
        JsonObject *vm = element_object(vms, i);

        table_add(table, g_strdup(member_string(vm, "vm")));
        table_add(table, rate_text((guint64)member_int(vm, "limit_bytes_s")));
        table_add(table, member_bool(vm, "streams")
                             ? rate_text((guint64)member_int(vm, "share_bytes_s"))
                             : g_strdup("-"));
    }
    if (table_rows(table) == 0)
        return;
    rendered = table_render(table, "  ");
    fputs(rendered, stdout);
}

gboolean command_limit(const char *socket, int argc, char **argv, GError **error)
{
    gboolean json = FALSE;
    const GOptionEntry entries[] = {
        {"json", 0, 0, G_OPTION_ARG_NONE, &json, "print the daemon's answer as it is", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    LimitRequest request;
    g_auto(GStrv) words = NULL;
    g_autoptr(Daemon) daemon = NULL;
    g_autoptr(JsonNode) answer = NULL;

    if (!command_parse_words(
            "[VM] [RATE|none]",
            "Limits how fast memory arrives at this host, of one VM or of all together; shows\n"
            "the limits if there is no RATE. A RATE is " RATE_TEXT ".\n"
            "VMs share the host's limit evenly; pages that a guest waits for are never held back.",
            entries, argc, argv, 2, &words, error) ||
        !parse_words(words, g_strv_length(words), &request, error))
        return FALSE;
    daemon = daemon_connect(socket, NULL, error);
    answer = daemon ? ask(daemon, &request, error) : NULL;
    if (!answer) {
        explain(&request, error);
        return FALSE;
    }
    if (json) {
        g_autofree char *line = node_line(answer);
        puts(line);
    } else {
        print_limits(node_object(answer));
    }
    return TRUE;
}
