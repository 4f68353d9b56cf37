/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/transport.h"

#include <string.h>

#include "client/ctl/error.h"
#include "client/ctl/format.h"
#include "protocol/qmp/json.h"

gboolean transport_check_word(const char *word, GError **error)
{
    static const char *const words[] = {"auto", "tcp", "rdma", NULL};

    if (!word || g_strv_contains(words, word))
        return TRUE;
    g_set_error(error, CALL_ERROR, CALL_ERROR_USAGE, "--transport '%s': must be auto, tcp or rdma",
                word);
    return FALSE;
}

guint transport_peers_with(JsonObject *rdma, const char *wanted)
{
    g_auto(GStrv) entries = g_strsplit(member_string(rdma, "peers"), ",", -1);
    guint n = 0;

    for (guint i = 0; entries[i]; i++) {
        char *word = strchr(entries[i], '=');

        if (word && (!wanted || strcmp(g_strstrip(word + 1), wanted) == 0))
            n++;
    }
    return n;
}

gboolean transport_never_rdma(JsonObject *rdma)
{
    return strcmp(member_string(rdma, "transport"), "tcp") == 0 &&
           transport_peers_with(rdma, NULL) == transport_peers_with(rdma, "tcp");
}

char *transport_word(JsonObject *import)
{
    JsonObject *transport = member_object(import, "transport");
    const char *kind = member_string(transport, "kind");
    const char *device = member_string(transport, "device");

    return g_strdup_printf("%s%s%s", *kind ? kind : "-", *device ? " " : "", device);
}

char *transport_remark(JsonObject *status, JsonObject *import)
{
    JsonObject *transport = member_object(import, "transport");
    const char *reason = member_string(transport, "reason");
    gboolean set_up = *member_string(member_object(status, "rdma"), "networks") != '\0';

    if (!*reason || (!set_up && strcmp(member_string(transport, "wanted"), "rdma") != 0))
        return g_strdup("");
    return g_strdup_printf("no RDMA: %s", reason);
}

char *transport_import_line(JsonObject *import)
{
    JsonObject *transport = member_object(import, "transport");
    const char *kind = member_string(transport, "kind");
    const char *reason = member_string(transport, "reason");
    gint64 failures = member_int(transport, "failures");
    g_autofree char *failed =
        failures ? g_strdup_printf(", failures %" G_GINT64_FORMAT, failures) : g_strdup("");
    g_autofree char *bytes = format_bytes((guint64)member_int(transport, "bytes"));
    g_autofree char *pinned = format_bytes((guint64)member_int(transport, "pinned_bytes"));

    if (!*kind)
        return NULL;
    if (strcmp(kind, "rdma") != 0 && member_int(transport, "reads") == 0)
        return g_strdup_printf("%s%s%s%s%s", kind, *reason ? " (" : "", reason, *reason ? ")" : "",
                               failed);
    return g_strdup_printf("%s%s%s%s%s%s, pairs %" G_GINT64_FORMAT ", spans %" G_GINT64_FORMAT
                           ", READs %" G_GINT64_FORMAT " of %s, pages landed %" G_GINT64_FORMAT
                           ", staged %" G_GINT64_FORMAT ", pinned %s%s",
                           kind, *member_string(transport, "device") ? " by " : "",
                           member_string(transport, "device"), *reason ? " (" : "", reason,
                           *reason ? ")" : "", member_int(transport, "pairs"),
                           member_int(transport, "spans"), member_int(transport, "reads"), bytes,
                           member_int(transport, "landed_pages"),
                           member_int(transport, "staged_pages"), pinned, failed);
}

char *transport_export_line(JsonObject *export)
{
    JsonObject *rdma = member_object(export, "rdma");
    const char *reason = member_string(rdma, "reason");
    g_autofree char *pinned = format_bytes((guint64)member_int(rdma, "pinned_bytes"));

    if (member_int(rdma, "pairs") == 0 && member_int(rdma, "spans") == 0 && !*reason)
        return NULL;
    return g_strdup_printf("pairs %" G_GINT64_FORMAT ", spans %" G_GINT64_FORMAT
                           ", pinned %s%s%s%s",
                           member_int(rdma, "pairs"), member_int(rdma, "spans"), pinned,
                           *reason ? " (" : "", reason, *reason ? ")" : "");
}

char *transport_host_line(JsonObject *status)
{
    JsonObject *rdma = member_object(status, "rdma");
    JsonArray *devices = member_array(rdma, "devices");
    g_autoptr(GString) names = g_string_new(NULL);
    g_autofree char *pinned = format_bytes((guint64)member_int(rdma, "pinned_bytes"));
    g_autofree char *most = format_bytes((guint64)member_int(rdma, "pinned_most_bytes"));

    if (!*member_string(rdma, "networks"))
        return NULL;
    if (transport_never_rdma(rdma))
        return g_strdup("RDMA is off: [peer] transport = tcp");
    for (guint i = 0; i < element_count(devices); i++)
        g_string_append_printf(names, "%s%s", i ? ", " : "",
                               json_array_get_string_element(devices, i));
    /* Whoever lists the other hosts' addresses alone has none there, and RDMA. */
    return g_strdup_printf(
        "RDMA on %s%s by %s, pinned %s of %s", member_string(rdma, "networks"),
        element_count(member_array(rdma, "addresses")) == 0 ? " (no address of this host)" : "",
        names->len ? names->str : "no device", pinned, most);
}
