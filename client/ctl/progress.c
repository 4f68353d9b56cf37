/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/progress.h"

#include <inttypes.h>
#include <string.h>

#include "client/ctl/format.h"
#include "protocol/qmp/json.h"

/* Rates over shorter times than this are noise. */
#define RATE_MIN_US (G_USEC_PER_SEC / 5)

/* How much of the old rate is left after each measurement. */
#define RATE_MEMORY 0.7

void progress_deinit(Progress *progress)
{
    g_clear_pointer(&progress->state, g_free);
    g_clear_pointer(&progress->text, g_free);
}

static void update_rate(Progress *progress, gint64 now_us)
{
    gint64 elapsed = now_us - progress->rate_time_us;
    double rate;

    if (progress->rate_time_us && elapsed < RATE_MIN_US)
        return;
    if (progress->rate_time_us && progress->present_bytes >= progress->rate_bytes) {
        rate = (double)(progress->present_bytes - progress->rate_bytes) * G_USEC_PER_SEC /
               (double)elapsed;
        progress->rate =
            progress->rate > 0 ? RATE_MEMORY * progress->rate + (1 - RATE_MEMORY) * rate : rate;
    }
    progress->rate_time_us = now_us;
    progress->rate_bytes = progress->present_bytes;
}

void progress_update(Progress *progress, JsonObject *answer, gint64 now_us)
{
    g_free(progress->state);
    g_free(progress->text);
    progress->state = g_strdup(member_string(answer, "state"));
    progress->text = g_strdup(member_string(answer, "text"));
    progress->populated_bytes = (guint64)member_int(answer, "populated_bytes");
    progress->present_bytes = (guint64)member_int(answer, "present_bytes");
    progress->missing_at_running = (guint64)member_int(answer, "missing_at_running");
    progress->faults = (guint64)member_int(answer, "faults");
    progress->received_bytes = (guint64)member_int(answer, "received_bytes");
    progress->fault_p50_ns = (guint64)member_int(answer, "fault_p50_ns");
    progress->fault_p99_ns = (guint64)member_int(answer, "fault_p99_ns");
    update_rate(progress, now_us);
}

ProgressVerdict progress_verdict(const Progress *progress)
{
    static const char *const done[] = {"released", "done", NULL};
    static const char *const failed[] = {"fenced", "broken", "cancelled", NULL};

    if (!progress->state)
        return PROGRESS_GOES_ON;
    if (g_strv_contains(done, progress->state))
        return PROGRESS_DONE;
    if (g_strv_contains(failed, progress->state))
        return PROGRESS_FAILED;
    return strcmp(progress->state, "complete") == 0 ? PROGRESS_COMPLETE : PROGRESS_GOES_ON;
}

double progress_seconds_left(const Progress *progress)
{
    if (progress->populated_bytes == 0 || progress->rate < 1)
        return -1;
    if (progress->present_bytes >= progress->populated_bytes)
        return 0;
    return (double)(progress->populated_bytes - progress->present_bytes) / progress->rate;
}

static void append_bar(const Progress *progress, guint columns, gboolean ascii, GString *line)
{
    double fraction = progress->populated_bytes
                          ? (double)progress->present_bytes / (double)progress->populated_bytes
                          : 0;
    g_autofree char *bar = format_bar(fraction, columns, ascii);

    g_string_append_printf(line, "[%s] ", bar);
}

static void append_rate(const Progress *progress, GString *line)
{
    g_autofree char *rate = format_bytes((guint64)progress->rate);
    double left = progress_seconds_left(progress);

    if (progress->rate < 1)
        return;
    g_string_append_printf(line, ", %s/s", rate);
    if (left > 0) {
        g_autofree char *time = format_seconds(left);
        g_string_append_printf(line, ", %s left", time);
    }
}

static void append_faults(const Progress *progress, GString *line)
{
    g_autofree char *p50 = format_nanoseconds(progress->fault_p50_ns);
    g_autofree char *p99 = format_nanoseconds(progress->fault_p99_ns);

    g_string_append_printf(line, ", %" PRIu64 " faults", progress->faults);
    if (progress->fault_p99_ns)
        g_string_append_printf(line, " (p50 %s, p99 %s)", p50, p99);
}

char *progress_line(const Progress *progress, guint columns, gboolean ascii)
{
    GString *line = g_string_new(NULL);
    g_autofree char *percent = format_percent(progress->present_bytes, progress->populated_bytes);
    g_autofree char *present = format_bytes(progress->present_bytes);
    g_autofree char *populated = format_bytes(progress->populated_bytes);

    if (columns)
        append_bar(progress, columns, ascii, line);
    g_string_append_printf(line, "%s  %s of %s", percent, present,
                           progress->populated_bytes ? populated : "?");
    if (g_strcmp0(progress->state, "paused") == 0)
        g_string_append(line, ", paused: the link to the source is down, missing pages wait");
    else
        append_rate(progress, line);
    append_faults(progress, line);
    return g_string_free(line, FALSE);
}

void progress_to_json(const Progress *progress, JsonObject *object)
{
    double left = progress_seconds_left(progress);

    json_object_set_string_member(object, "state", progress->state ? progress->state : "");
    json_object_set_int_member(object, "populated_bytes", (gint64)progress->populated_bytes);
    json_object_set_int_member(object, "present_bytes", (gint64)progress->present_bytes);
    json_object_set_int_member(object, "missing_at_running", (gint64)progress->missing_at_running);
    json_object_set_int_member(object, "received_bytes", (gint64)progress->received_bytes);
    json_object_set_int_member(object, "faults", (gint64)progress->faults);
    json_object_set_int_member(object, "fault_p50_ns", (gint64)progress->fault_p50_ns);
    json_object_set_int_member(object, "fault_p99_ns", (gint64)progress->fault_p99_ns);
    json_object_set_int_member(object, "rate_bytes_s", (gint64)progress->rate);
    if (left >= 0)
        json_object_set_double_member(object, "seconds_left", left);
    if (progress->text && *progress->text)
        json_object_set_string_member(object, "text", progress->text);
}
