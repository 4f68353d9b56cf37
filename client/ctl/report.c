/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/report.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "client/ctl/error.h"
#include "client/ctl/format.h"
#include "protocol/qmp/json.h"

enum { BAR_COLUMNS = 24 };

#define LINE_INTERVAL_US G_USEC_PER_SEC
#define JSON_INTERVAL_US (G_USEC_PER_SEC / 2)
#define BAR_INTERVAL_US  (G_USEC_PER_SEC / 10)

void report_init(Report *report, const char *vm, gboolean json)
{
    *report = (Report){
        .json = json,
        .terminal = !json && isatty(STDOUT_FILENO),
        .vm = vm,
        .started_us = g_get_monotonic_time(),
    };
}

static gint64 elapsed_ms(const Report *report)
{
    return (g_get_monotonic_time() - report->started_us) / 1000;
}

static void end_bar(Report *report)
{
    if (report->bar)
        putchar('\n');
    report->bar = FALSE;
}

static JsonObject *new_event(const Report *report, const char *event, JsonObject *members)
{
    JsonObject *object = members ? members : json_object_new();

    json_object_set_string_member(object, "event", event);
    json_object_set_string_member(object, "vm", report->vm);
    json_object_set_int_member(object, "elapsed_ms", elapsed_ms(report));
    return object;
}

static void print_event(JsonObject *object)
{
    g_autofree char *line = object_line(object);

    puts(line);
    fflush(stdout);
}

static void print_line(Report *report, const char *text)
{
    end_bar(report);
    printf("%7.2f s  %s\n", (double)elapsed_ms(report) / 1000, text);
    fflush(stdout);
}

void report_phase(Report *report, const char *phase, const char *text, JsonObject *more)
{
    if (report->json) {
        JsonObject *object = new_event(report, "phase", more);

        json_object_set_string_member(object, "phase", phase);
        json_object_set_string_member(object, "text", text);
        print_event(object);
        return;
    }
    g_clear_pointer(&more, json_object_unref);
    print_line(report, text);
}

void report_note(Report *report, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list arguments;

    va_start(arguments, format);
    text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    if (report->json) {
        JsonObject *object = new_event(report, "note", NULL);

        json_object_set_string_member(object, "text", text);
        print_event(object);
        return;
    }
    end_bar(report);
    fflush(stdout);
    fprintf(stderr, "postcopyctl: note: %s\n", text);
}

static gint64 progress_interval(const Report *report)
{
    if (report->json)
        return JSON_INTERVAL_US;
    return report->terminal ? BAR_INTERVAL_US : LINE_INTERVAL_US;
}

void report_progress(Report *report, const Progress *progress)
{
    gint64 now = g_get_monotonic_time();
    g_autofree char *line = NULL;

    if (report->progress_us && progress_verdict(progress) == PROGRESS_GOES_ON &&
        now - report->progress_us < progress_interval(report))
        return;
    report->progress_us = now;
    if (report->json) {
        JsonObject *object = new_event(report, "progress", NULL);

        progress_to_json(progress, object);
        print_event(object);
        return;
    }
    line = progress_line(progress, report->terminal ? BAR_COLUMNS : 0, format_is_ascii());
    if (!report->terminal) {
        print_line(report, line);
        return;
    }
    printf("\r%s\033[K", line);
    fflush(stdout);
    report->bar = TRUE;
}

static void print_error(const GError *error)
{
    fprintf(stderr, "postcopyctl: %s\n", error->message);
}

void report_result(Report *report, JsonObject *members, const GError *error)
{
    if (report->json) {
        JsonObject *object = new_event(report, "result", members);

        json_object_set_boolean_member(object, "success", error == NULL);
        json_object_set_int_member(object, "exit", error ? ctl_error_status(error) : 0);
        if (error)
            json_object_set_string_member(object, "error", error->message);
        print_event(object);
    } else {
        end_bar(report);
        g_clear_pointer(&members, json_object_unref);
    }
    fflush(stdout);
    if (error)
        print_error(error);
}
