/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <inttypes.h>

#include "client/ctl/format.h"
#include "client/ctl/stats.h"
#include "client/ctl/transport.h"
#include "protocol/qmp/json.h"

enum {
    BUCKETS_MAX = 63,
    BAR_COLUMNS = 40,
};

/* A line of figures; words are set in a column of their own. */
static void append_figures(GString *text, const char *word, const char *figures)
{
    g_string_append_printf(text, "  %-9s %s\n", word, figures);
}

static void append_memory(JsonObject *import, GString *text)
{
    guint64 present = (guint64)member_int(import, "present_bytes");
    guint64 populated = (guint64)member_int(import, "populated_bytes");
    guint64 missing = (guint64)member_int(import, "missing_bytes");
    guint64 bytes_s = (guint64)member_int(import, "rate_bytes_s");
    g_autofree char *memory_text = format_bytes((guint64)member_int(import, "memory_bytes"));
    g_autofree char *populated_text = format_bytes(populated);
    g_autofree char *present_text = format_bytes(present);
    g_autofree char *percent = format_percent(present, populated);
    g_autofree char *missing_text = format_bytes(missing);
    g_autofree char *rate = format_bytes(bytes_s);
    g_autofree char *left =
        bytes_s && missing ? format_seconds((double)missing / (double)bytes_s) : NULL;
    g_autofree char *figures = g_strdup_printf(
        "%s, populated %s, present %s (%s), missing %s, %s/s%s%s", memory_text, populated_text,
        present_text, percent, missing_text, rate, left ? ", left " : "", left ? left : "");

    append_figures(text, "memory", figures);
}

static void append_traffic(JsonObject *import, GString *text)
{
    g_autofree char *received = format_bytes((guint64)member_int(import, "received_bytes"));
    g_autofree char *running = format_seconds(member_double(import, "running_s"));
    double complete_ms = member_double(import, "complete_ms");
    g_autofree char *complete = complete_ms > 0 ? format_seconds(complete_ms / 1000) : g_strdup("");
    g_autofree char *missing = format_bytes((guint64)member_int(import, "missing_at_running"));
    g_autofree char *figures =
        g_strdup_printf("received %s, running %s%s%s, missing at the start %s", received, running,
                        *complete ? ", complete after " : "", complete, missing);

    append_figures(text, "transfer", figures);
}

static void append_pages(JsonObject *import, GString *text)
{
    static const char *const kinds[] = {"copied",   "zero",      "hole",      "continued",
                                        "by_fault", "by_around", "by_stream", "waited",
                                        "eexist",   "retried",   "poisoned"};
    static const char *const words[] = {"copied",          "zero",        "hole",      "continued",
                                        "by fault",        "around them", "by stream", "waited for",
                                        "present already", "retried",     "poisoned"};
    g_autoptr(GString) figures = g_string_new(NULL);
    JsonObject *pages = member_object(import, "pages");

    for (guint i = 0; i < G_N_ELEMENTS(kinds); i++)
        g_string_append_printf(figures, "%s%s %" G_GINT64_FORMAT,
                               i == 0   ? ""
                               : i == 4 ? "; "
                                        : ", ",
                               words[i], member_int(pages, kinds[i]));
    g_string_append_printf(figures, "; %.1f %% because of faults",
                           100 * member_double(import, "faulted_share"));
    append_figures(text, "pages", figures->str);
}

static void append_stream(JsonObject *import, GString *text)
{
    JsonObject *stream = member_object(import, "stream");
    guint64 bytes_s = (guint64)member_int(import, "limit_bytes_s");
    g_autofree char *window = format_bytes((guint64)member_int(stream, "window_bytes"));
    g_autofree char *chunk = format_bytes((guint64)member_int(stream, "chunk_bytes"));
    g_autofree char *limit = format_bytes(bytes_s);
    g_autofree char *figures = g_strdup_printf("window %s, chunk %s, limit %s%s", window, chunk,
                                               bytes_s ? limit : "none", bytes_s ? "/s" : "");

    append_figures(text, "stream", figures);
}

/* Takes the line; NULL: none. */
static void append_transport(GString *text, const char *word, char *line)
{
    if (line)
        append_figures(text, word, line);
    g_free(line);
}

static void append_faults(JsonObject *import, GString *text)
{
    JsonObject *latency = member_object(import, "latency");
    g_autofree char *p50 = format_nanoseconds((guint64)member_int(latency, "p50_ns"));
    g_autofree char *p90 = format_nanoseconds((guint64)member_int(latency, "p90_ns"));
    g_autofree char *p99 = format_nanoseconds((guint64)member_int(latency, "p99_ns"));
    g_autofree char *most = format_nanoseconds((guint64)member_int(latency, "max_ns"));
    g_autofree char *figures = g_strdup_printf(
        "%" G_GINT64_FORMAT " (%" G_GINT64_FORMAT " on present pages), p50 %s, p90 %s, p99 %s, "
        "max %s",
        member_int(import, "faults"), member_int(import, "faults_present"), p50, p90, p99, most);

    append_figures(text, "faults", figures);
}

static void append_table(GString *text, Table *table)
{
    g_autofree char *rendered = table_rows(table) ? table_render(table, "    ") : g_strdup("");

    g_string_append(text, rendered);
}

static void add_number(Table *table, JsonObject *object, const char *member)
{
    table_add(table, g_strdup_printf("%" G_GINT64_FORMAT, member_int(object, member)));
}

static void add_latency(Table *table, JsonObject *object, const char *member)
{
    table_add(table, format_nanoseconds((guint64)member_int(object, member)));
}

static void append_vcpus(JsonArray *vcpus, GString *text)
{
    g_autoptr(Table) table = table_new(
        (const char *const[]){">VCPU", ">TID", ">FAULTS", ">P50", ">P90", ">P99", ">MAX", NULL});

    for (guint i = 0; i < element_count(vcpus); i++) {
        JsonObject *vcpu = element_object(vcpus, i);
        JsonObject *latency = member_object(vcpu, "latency");
        gint64 index = member_int(vcpu, "vcpu");

        table_add(table,
                  index < 0 ? g_strdup("other") : g_strdup_printf("%" G_GINT64_FORMAT, index));
        add_number(table, vcpu, "tid");
        add_number(table, vcpu, "faults");
        add_latency(table, latency, "p50_ns");
        add_latency(table, latency, "p90_ns");
        add_latency(table, latency, "p99_ns");
        add_latency(table, latency, "max_ns");
    }
    append_table(text, table);
}

static void append_channels(JsonArray *channels, GString *text)
{
    g_autoptr(Table) table =
        table_new((const char *const[]){"CHANNEL", ">#", "STATE", ">REQUESTS", ">BYTES", NULL});

    for (guint i = 0; i < element_count(channels); i++) {
        JsonObject *channel = element_object(channels, i);

        table_add(table, g_strdup(member_string(channel, "kind")));
        add_number(table, channel, "index");
        table_add(table, g_strdup(member_string(channel, "state")));
        add_number(table, channel, "requests");
        table_add(table, format_bytes((guint64)member_int(channel, "bytes")));
    }
    append_table(text, table);
}

static void append_resolvers(JsonArray *resolvers, GString *text)
{
    g_autoptr(Table) table =
        table_new((const char *const[]){">RESOLVER", ">FAULTS", ">WAKE-UPS", ">READS",
                                        ">HANDED OVER", ">WAKES OWED", ">TAKEN OVER", NULL});

    for (guint i = 0; i < element_count(resolvers); i++) {
        JsonObject *resolver = element_object(resolvers, i);

        add_number(table, resolver, "index");
        add_number(table, resolver, "faults");
        add_number(table, resolver, "wakeups");
        add_number(table, resolver, "reads");
        add_number(table, resolver, "handed_over");
        add_number(table, resolver, "wakes_owed");
        add_number(table, resolver, "taken_over");
    }
    append_table(text, table);
}

static void append_histogram(JsonObject *latency, gboolean ascii, GString *text)
{
    JsonArray *histogram = member_array(latency, "histogram");
    guint64 counts[BUCKETS_MAX];
    guint n = MIN(element_count(histogram), BUCKETS_MAX);
    g_autofree char *bars = NULL;

    for (guint i = 0; i < n; i++)
        counts[i] = (guint64)element_int(histogram, i);
    bars = format_histogram(counts, n, BAR_COLUMNS, ascii);
    if (*bars)
        g_string_append_printf(text, "  fault latency, from … to twice that\n%s", bars);
}

static void append_title(GString *text, JsonObject *object, const char *direction,
                         const char *member)
{
    const char *reason = member_string(object, "text");
    gint64 ended_us = member_int(object, "ended_us"),
           completed_us = member_int(object, "completed_us");
    g_autofree char *ended = ended_us ? format_time(completed_us ? completed_us : ended_us) : NULL;

    g_string_append_printf(text, "%s%s: %s, %s %s%s%s%s%s\n", text->len ? "\n" : "",
                           member_string(object, "vm"), member_string(object, "state"), direction,
                           member_string(object, member), ended ? ", over since " : "",
                           ended ? ended : "", *reason ? " — " : "", reason);
}

static void append_import(JsonObject *import, gboolean ascii, GString *text)
{
    append_title(text, import, "from", "source");
    append_memory(import, text);
    if (member_bool(import, "adopted"))
        append_figures(text, "counted", "since this daemon took over from an earlier one");
    append_traffic(import, text);
    append_pages(import, text);
    append_stream(import, text);
    append_transport(text, "transport", transport_import_line(import));
    append_faults(import, text);
    append_vcpus(member_array(import, "vcpus"), text);
    append_channels(member_array(import, "channels"), text);
    append_resolvers(member_array(import, "resolvers"), text);
    append_histogram(member_object(import, "latency"), ascii, text);
}

static void append_export(JsonObject *export, GString *text)
{
    g_autofree char *bytes = format_bytes((guint64)member_int(export, "bytes"));
    g_autofree char *figures = g_strdup_printf(
        "%" G_GINT64_FORMAT " (%" G_GINT64_FORMAT " urgent), pages %" G_GINT64_FORMAT
        ", of them zero %" G_GINT64_FORMAT ", %s%s",
        member_int(export, "reads"), member_int(export, "urgent_reads"),
        member_int(export, "pages_read"), member_int(export, "zero_pages"), bytes,
        member_bool(export, "fenced") ? ", FENCED" : "");

    append_title(text, export, "to", "destination");
    append_figures(text, "reads", figures);
    append_transport(text, "RDMA", transport_export_line(export));
    append_channels(member_array(export, "channels"), text);
}

/* Whole, if it was asked for; else only who they were. */
static void append_past(JsonArray *past, gboolean ascii, GString *text)
{
    JsonObject *newest = element_object(past, 0);
    g_autoptr(GHashTable) named = g_hash_table_new(g_str_hash, g_str_equal);

    if (member_object(newest, "pages")) {
        append_import(newest, ascii, text);
        return;
    }
    g_string_append(text, "nothing is being imported or exported");
    for (guint i = 0; i < element_count(past); i++) {
        const char *vm = member_string(element_object(past, i), "vm");

        if (g_hash_table_add(named, (gpointer)vm))
            g_string_append_printf(text, "%s%s", i == 0 ? "; over: " : ", ", vm);
    }
    g_string_append_c(text, '\n');
}

char *stats_render(JsonObject *answer, gboolean ascii)
{
    GString *text = g_string_new(NULL);
    JsonArray *imports = member_array(answer, "imports");
    JsonArray *exports = member_array(answer, "exports");

    for (guint i = 0; i < element_count(imports); i++)
        append_import(element_object(imports, i), ascii, text);
    for (guint i = 0; i < element_count(exports); i++)
        append_export(element_object(exports, i), text);
    if (text->len == 0)
        append_past(member_array(answer, "past"), ascii, text);
    return g_string_free(text, FALSE);
}
