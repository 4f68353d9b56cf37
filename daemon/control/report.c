/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/report.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/control/assist.h"
#include "daemon/control/past.h"
#include "daemon/control/report_rdma.h"
#include "daemon/core/clock.h"
#include "daemon/qemu/agent.h"
#include "version.h"

static void set_number(JsonObject *object, const char *name, guint64 value)
{
    json_object_set_int_member(object, name, (gint64)value);
}

static void set_count(JsonObject *object, const char *name, const _Atomic uint64_t *value)
{
    set_number(object, name, atomic_load_explicit(value, memory_order_relaxed));
}

static void set_seal(JsonObject *object, const _Atomic uint64_t *seal)
{
    g_autofree char *text = g_strdup_printf("%016" G_GINT64_MODIFIER "x", atomic_load(seal));

    json_object_set_string_member(object, "seal", text);
}

static void set_uuid(JsonObject *object, const guint8 *uuid)
{
    g_autofree char *text = uuid_to_text(uuid);

    json_object_set_string_member(object, "uuid", text);
}

static JsonObject *latency(const Histogram *histogram)
{
    JsonObject *object = json_object_new();
    JsonArray *array = json_array_new();
    HistogramSummary summary;

    histogram_summarise(histogram, &summary);
    set_number(object, "count", summary.count);
    set_number(object, "p50_ns", summary.p50_ns);
    set_number(object, "p90_ns", summary.p90_ns);
    set_number(object, "p99_ns", summary.p99_ns);
    set_number(object, "max_ns", summary.max_ns);
    set_number(object, "sum_ns", summary.sum_ns);
    for (int i = 0; i < HISTOGRAM_OCTAVES; i++)
        json_array_add_int_element(array, (gint64)summary.octaves[i]);
    json_object_set_array_member(object, "histogram", array);
    return object;
}

/* --- sessions ------------------------------------------------------------------------------ */

static ClientState session_state(const Connection *connection)
{
    if (connection->arrival && connection->arrival->import && arrival_is_open(connection->arrival))
        return import_state(connection->arrival->import);
    if (connection->departure)
        return departure_state(connection->departure);
    return connection->arrival && connection->arrival->stage == ARRIVAL_RELEASED
               ? CLIENT_STATE_RELEASED
               : CLIENT_STATE_IDLE;
}

static JsonObject *session(const Connection *connection)
{
    JsonObject *object = json_object_new();

    set_number(object, "id", connection->id);
    json_object_set_string_member(object, "vm", connection->name);
    set_uuid(object, connection->uuid);
    set_number(object, "pid", (guint64)connection->peer.pid);
    set_number(object, "uid", connection->peer.uid);
    json_object_set_string_member(
        object, "role", connection->role == CLIENT_ROLE_SOURCE ? "source" : "destination");
    json_object_set_string_member(object, "state", client_state_name(session_state(connection)));
    set_number(object, "memory_bytes", region_set_length(&connection->regions));
    set_number(object, "regions", connection->regions.n);
    set_number(object, "vcpus", connection->n_vcpus);
    json_object_set_string_member(object, "problem", connection->problem);
    set_number(object, "connected_s",
               (guint64)(g_get_monotonic_time() - connection->since_us) / G_USEC_PER_SEC);
    return object;
}

/* --- imports ------------------------------------------------------------------------------- */

static JsonObject *import_pages(const Import *import)
{
    JsonObject *object = json_object_new();
    const ImportCounters *counters = &import->counters;

    set_count(object, "copied", &counters->copied);
    set_count(object, "zero", &counters->zero);
    set_count(object, "hole", &counters->hole);
    set_count(object, "continued", &counters->continued);
    set_count(object, "by_fault", &counters->by_fault);
    set_count(object, "by_around", &counters->by_around);
    set_count(object, "by_stream", &counters->by_stream);
    set_count(object, "waited", &counters->waited);
    set_count(object, "eexist", &counters->eexist);
    set_count(object, "retried", &counters->retried);
    set_count(object, "poisoned", &counters->poisoned);
    set_count(object, "removed", &counters->removed);
    return object;
}

/* Of the pages that came, those that a fault brought, with its neighbours. */
static double faulted_share(const Import *import)
{
    double faulted = (double)(atomic_load(&import->counters.by_fault) +
                              atomic_load(&import->counters.by_around));
    double all = faulted + (double)atomic_load(&import->counters.by_stream);

    return all > 0 ? faulted / all : 0.0;
}

static JsonArray *import_vcpus(const Import *import)
{
    const VcpuTable *table = atomic_load(&import->vcpus);
    JsonArray *array = json_array_new();

    for (guint32 i = 0; i <= table->n; i++) {
        JsonObject *object = json_object_new();
        JsonObject *figures = latency(&table->latency[i]);
        gint64 faults = json_object_get_int_member(figures, "count");

        if (i == table->n && faults == 0) {
            json_object_unref(figures);
            json_object_unref(object);
            break;
        }
        /* The last entry stands for threads that are no vCPU. */
        json_object_set_int_member(object, "vcpu", i < table->n ? (gint64)i : -1);
        set_number(object, "tid", i < table->n ? table->tids[i] : 0);
        json_object_set_int_member(object, "faults", faults);
        json_object_set_object_member(object, "latency", figures);
        json_array_add_object_element(array, object);
    }
    return array;
}

static void add_channel(JsonArray *array, const char *kind, guint index, gboolean connected,
                        const _Atomic uint64_t *requests, const _Atomic uint64_t *bytes)
{
    JsonObject *object = json_object_new();

    json_object_set_string_member(object, "kind", kind);
    set_number(object, "index", index);
    json_object_set_string_member(object, "state", connected ? "connected" : "down");
    set_count(object, "requests", requests);
    set_count(object, "bytes", bytes);
    json_array_add_object_element(array, object);
}

static JsonArray *import_channels(const Import *import)
{
    JsonArray *array = json_array_new();

    for (unsigned i = 0; i < import->n_resolvers; i++) {
        const Channel *channel = &import->resolvers[i].channel;
        add_channel(array, "urgent", i, atomic_load(&channel->connected), &channel->requests,
                    &channel->bytes);
    }
    for (unsigned i = 0; i < import->stream.n_channels; i++) {
        const Channel *channel = &import->stream.channels[i].channel;
        add_channel(array, "bulk", i, atomic_load(&channel->connected), &channel->requests,
                    &channel->bytes);
    }
    return array;
}

static JsonArray *import_resolvers(const Import *import)
{
    JsonArray *array = json_array_new();

    for (unsigned i = 0; i < import->n_resolvers; i++) {
        const Resolver *resolver = &import->resolvers[i];
        JsonObject *object = json_object_new();

        set_number(object, "index", i);
        set_count(object, "faults", &resolver->faults);
        set_count(object, "wakeups", &resolver->wakeups);
        set_count(object, "reads", &resolver->reads);
        set_count(object, "around_bytes", &resolver->around.bytes);
        set_count(object, "handed_over", &resolver->handed_over);
        set_count(object, "wakes_owed", &resolver->wakes_owed);
        set_count(object, "queue_full", &resolver->queue_full);
        set_count(object, "taken_over", &resolver->taken_over);
        json_array_add_object_element(array, object);
    }
    return array;
}

static JsonObject *import_stream(const Import *import)
{
    JsonObject *object = json_object_new();

    set_count(object, "window_bytes", &import->stream.window);
    set_count(object, "chunk_bytes", &import->stream.chunk);
    return object;
}

static guint64 table_bytes(const Import *import)
{
    struct stat status;

    return import->table.fd >= 0 && fstat(import->table.fd, &status) == 0
               ? (guint64)status.st_blocks * 512
               : 0;
}

static void import_times(JsonObject *object, const Import *import)
{
    guint64 gate = atomic_load(&import->gate_ns);
    guint64 complete = atomic_load(&import->complete_ns);
    guint64 end = complete ? complete : clock_ns();
    guint64 received = import_received_bytes(import);

    json_object_set_double_member(object, "running_s", gate ? (double)(end - gate) / 1e9 : 0.0);
    json_object_set_double_member(object, "complete_ms",
                                  gate && complete ? (double)(complete - gate) / 1e6 : 0.0);
    json_object_set_double_member(object, "rate_bytes_s",
                                  gate && end > gate ? (double)received * 1e9 / (double)(end - gate)
                                                     : 0.0);
    set_number(object, "received_bytes", received);
    set_number(object, "completed_us",
               complete ? (guint64)g_get_real_time() - (clock_ns() - complete) / 1000 : 0);
}

static void import_memory(JsonObject *object, const Import *import)
{
    guint64 populated = atomic_load(&import->counters.populated_bytes);
    guint64 present = import_present_bytes(import);

    set_number(object, "memory_bytes", region_set_length(&import->regions));
    set_number(object, "populated_bytes", populated);
    set_number(object, "present_bytes", present);
    set_number(object, "missing_bytes", populated > present ? populated - present : 0);
    set_count(object, "limit_bytes_s", &import->limit);
    set_number(object, "missing_at_running", import_missing_at_running(import));
    set_number(object, "table_bytes", table_bytes(import));
}

static void import_details(JsonObject *object, const Import *import)
{
    json_object_set_object_member(object, "latency", latency(&import->latency));
    json_object_set_array_member(object, "vcpus", import_vcpus(import));
    json_object_set_array_member(object, "channels", import_channels(import));
    json_object_set_array_member(object, "resolvers", import_resolvers(import));
    json_object_set_object_member(object, "stream", import_stream(import));
}

static JsonObject *import_object(Import *import, int pid, guint64 limit, gboolean full)
{
    JsonObject *object = json_object_new();

    json_object_set_string_member(object, "vm", import->name);
    set_uuid(object, import->uuid);
    set_number(object, "pid", (guint64)pid);
    json_object_set_string_member(object, "mode", import->config.assist ? "assist" : "direct");
    json_object_set_string_member(object, "state", client_state_name(import_state(import)));
    json_object_set_string_member(object, "source", import->source);
    set_seal(object, &import->seal);
    json_object_set_boolean_member(object, "adopted", import->adopted);
    set_number(object, "generation", import->generation);
    set_number(object, "reconnects", atomic_load(&import->link.reconnects));
    import_memory(object, import);
    import_times(object, import);
    json_object_set_object_member(object, "pages", import_pages(import));
    json_object_set_double_member(object, "faulted_share", faulted_share(import));
    set_number(object, "vm_limit_bytes_s", limit);
    set_count(object, "faults", &import->counters.faults);
    set_count(object, "faults_present", &import->counters.faults_present);
    report_rdma_import(import, object);
    if (full)
        import_details(object, import);
    pthread_mutex_lock(&import->text_lock);
    json_object_set_string_member(object, "text", import->text);
    pthread_mutex_unlock(&import->text_lock);
    return object;
}

/* Whoever stopped it left a word for that; nobody else comes to say that it is over. */
static const char *last_state(const Import *import)
{
    if (import_is_halted(import))
        return client_state_name(import_state(import));
    return atomic_load(&import->complete_ns) != 0 ? client_state_name(CLIENT_STATE_RELEASED)
                                                  : "ended";
}

void report_keep(Control *control, Import *import, int pid, guint64 limit)
{
    JsonObject *object;

    if (!import || !import_gate_is_open(import))
        return;
    object = import_object(import, pid, limit, TRUE);
    json_object_set_string_member(object, "state", last_state(import));
    past_add(&control->past, object);
}

/* --- exports ------------------------------------------------------------------------------- */

static JsonObject *progress_object(const ExportProgress *progress)
{
    JsonObject *object = json_object_new();

    json_object_set_string_member(object, "state",
                                  progress->known ? client_state_name(progress->state) : "idle");
    set_number(object, "populated_bytes", progress->populated_bytes);
    set_number(object, "present_bytes", progress->present_bytes);
    set_number(object, "missing_at_running", progress->missing_at_running);
    set_number(object, "faults", progress->faults);
    set_number(object, "received_bytes", progress->received_bytes);
    set_number(object, "fault_p50_ns", progress->fault_p50_ns);
    set_number(object, "fault_p99_ns", progress->fault_p99_ns);
    json_object_set_string_member(object, "text", progress->text);
    return object;
}

static JsonArray *export_channels(Export *export)
{
    static const char *const kinds[] = {"control", "urgent", "bulk", "relay"};
    JsonArray *array = json_array_new();

    for (unsigned i = 0; i < EXPORT_CHANNELS_MAX; i++) {
        const ExportChannel *channel = &export->channels[i];
        if (channel->fd >= 0)
            add_channel(array, kinds[channel->kind], channel->index, TRUE, &channel->requests,
                        &channel->bytes);
    }
    return array;
}

static JsonObject *export_object(const Departure *departure)
{
    JsonObject *object = json_object_new();
    Export *export = departure->export;

    json_object_set_string_member(object, "vm", export->name);
    set_uuid(object, export->uuid);
    set_number(object, "pid", (guint64)departure->pid);
    json_object_set_string_member(object, "state", client_state_name(departure_state(departure)));
    json_object_set_string_member(object, "mode",
                                  departure->mode == DEPARTURE_ASSIST ? "assist" : "direct");
    json_object_set_string_member(object, "destination", departure->destination);
    set_seal(object, &export->seal);
    json_object_set_boolean_member(object, "fenced", atomic_load(&export->fenced));
    set_number(object, "memory_bytes", region_set_length(&export->memory.regions));
    set_count(object, "reads", &export->reads);
    set_count(object, "pages_read", &export->pages_read);
    set_count(object, "zero_pages", &export->zero_pages);
    set_count(object, "bytes", &export->bytes);
    set_count(object, "urgent_reads", &export->urgent_reads);
    report_rdma_export(export, object);
    pthread_mutex_lock(&export->lock);
    json_object_set_array_member(object, "channels", export_channels(export));
    json_object_set_object_member(object, "progress", progress_object(&export->progress));
    json_object_set_string_member(object, "text", export->reason);
    pthread_mutex_unlock(&export->lock);
    return object;
}

/* A destination that was lost is said to be paused, whatever it said last. */
JsonNode *report_progress(const Departure *departure)
{
    JsonNode *node = json_node_new(JSON_NODE_OBJECT);
    Export *export = departure->export;
    JsonObject *object;
    gboolean attached;

    pthread_mutex_lock(&export->lock);
    object = progress_object(&export->progress);
    attached = export->control != NULL;
    pthread_mutex_unlock(&export->lock);
    if (departure->stage == DEPARTURE_DONE)
        json_object_set_string_member(object, "state", "done");
    else if (departure->stage == DEPARTURE_ENDED)
        json_object_set_string_member(object, "state", "cancelled");
    else if (atomic_load(&export->fenced))
        json_object_set_string_member(object, "state", "fenced");
    else if (departure->stage == DEPARTURE_SEALED && !attached)
        json_object_set_string_member(object, "state", "paused");
    json_node_take_object(node, object);
    return node;
}

/* --- all of it ----------------------------------------------------------------------------- */

static gboolean is_wanted(const char *vm, int pid, const char *name, const guint8 *uuid, int of_pid)
{
    guint8 wanted[LIMIT_UUID];

    if (pid >= 0 && of_pid != pid)
        return FALSE;
    return !vm || strcmp(vm, name) == 0 ||
           (uuid_from_text(vm, wanted) && memcmp(wanted, uuid, LIMIT_UUID) == 0);
}

static JsonArray *sessions(Control *control, const char *vm, int pid)
{
    JsonArray *array = json_array_new();

    for (guint i = 0; i < control->connections->len; i++) {
        const Connection *connection = control->connections->pdata[i];
        if (connection->greeted &&
            is_wanted(vm, pid, connection->name, connection->uuid, connection->peer.pid))
            json_array_add_object_element(array, session(connection));
    }
    return array;
}

static JsonArray *imports(Control *control, const char *vm, int pid, gboolean full)
{
    JsonArray *array = json_array_new();

    for (guint i = 0; i < control->arrivals->len; i++) {
        const Arrival *arrival = control->arrivals->pdata[i];
        Import *import = arrival->import;
        if (import && is_wanted(vm, pid, import->name, import->uuid, arrival->pid))
            json_array_add_object_element(
                array, import_object(import, arrival->pid, arrival->limit, full));
    }
    for (guint i = 0; i < control->assists->len; i++) {
        const Assist *assist = control->assists->pdata[i];
        Import *import = assist->import;
        if (import && is_wanted(vm, pid, import->name, import->uuid, assist->pid))
            json_array_add_object_element(array,
                                          import_object(import, assist->pid, assist->limit, full));
    }
    return array;
}

static JsonArray *exports(Control *control, const char *vm, int pid)
{
    JsonArray *array = json_array_new();

    for (guint i = 0; i < control->departures->len; i++) {
        const Departure *departure = control->departures->pdata[i];
        const Export *export = departure->export;
        if (export && is_wanted(vm, pid, export->name, export->uuid, departure->pid))
            json_array_add_object_element(array, export_object(departure));
    }
    return array;
}

static JsonObject *libvirt(const Control *control)
{
    JsonObject *object = json_object_new();

    json_object_set_string_member(object, "uri", control->agent ? agent_uri(control->agent) : "");
    json_object_set_boolean_member(object, "connected",
                                   control->agent && agent_is_connected(control->agent));
    json_object_set_boolean_member(object, "enable_all",
                                   control->settings->libvirt_enable == LIBVIRT_ENABLE_ALL);
    return object;
}

JsonNode *report_all(Control *control, const char *vm, int pid, gboolean full)
{
    JsonNode *node = json_node_new(JSON_NODE_OBJECT);
    JsonObject *object = json_object_new();

    json_object_set_string_member(object, "version", POSTCOPYD_VERSION);
    set_number(object, "pid", (guint64)getpid());
    json_object_set_string_member(object, "listen", control->settings->listen);
    set_number(object, "up_s",
               (guint64)(g_get_monotonic_time() - control->started_us) / G_USEC_PER_SEC);
    set_number(object, "limit_bytes_s", control->limit);
    set_number(object, "busy_poll_us", control->settings->import.busy_poll_us);
    json_object_set_object_member(object, "libvirt", libvirt(control));
    report_rdma_host(control, object);
    json_object_set_array_member(object, "sessions", sessions(control, vm, pid));
    json_object_set_array_member(object, "imports", imports(control, vm, pid, full));
    json_object_set_array_member(object, "exports", exports(control, vm, pid));
    if (full && pid < 0)
        json_object_set_array_member(object, "past", past_list(&control->past, vm));
    json_node_take_object(node, object);
    return node;
}
