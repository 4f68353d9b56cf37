/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/config.h"

#include <errno.h>
#include <grp.h>
#include <string.h>
#include <unistd.h>

#include "daemon/config_lines.h"
#include "daemon/config_rdma.h"
#include "daemon/transport/address.h"
#include "paths.h"
#include "protocol/rate_text.h"

typedef enum KeyKind {
    KEY_STRING,
    KEY_BOOLEAN,
    KEY_NUMBER,
    KEY_MEASURED,
    KEY_BYTES,
    KEY_RATE,
    KEY_DISPATCH,
    KEY_ENABLE,
    KEY_TRANSPORT,
    KEY_NETWORKS,
    KEY_PEERS
} KeyKind;

/* Every key there is; the example file documents the same ones, and a test compares them. */
typedef struct Key {
    const char *group;
    const char *name;
    KeyKind kind;
    size_t offset; /* in Settings */
    guint64 low, high;
} Key;

static const char *const dispatches[IMPORT_DISPATCHES] = {
    [IMPORT_DISPATCH_DIRECT] = "direct",
    [IMPORT_DISPATCH_HOME] = "home",
};

static const char *const enables[LIBVIRT_ENABLES] = {
    [LIBVIRT_ENABLE_OPTED] = "opted",
    [LIBVIRT_ENABLE_ALL] = "all",
};

static const char *const transports[IMPORT_TRANSPORTS] = {
    [IMPORT_TRANSPORT_AUTO] = "auto",
    [IMPORT_TRANSPORT_TCP] = "tcp",
    [IMPORT_TRANSPORT_RDMA] = "rdma",
};

#define AT(field) offsetof(Settings, field)

static const Key keys[] = {
    {"daemon", "socket", KEY_STRING, AT(socket), 0, 0},
    {"daemon", "group", KEY_STRING, AT(group), 0, 0},
    {"daemon", "operator_group", KEY_STRING, AT(operator_group), 0, 0},
    {"daemon", "runtime_dir", KEY_STRING, AT(runtime_dir), 0, 0},
    {"daemon", "max_clients", KEY_NUMBER, AT(max_clients), 1, 65536},
    {"daemon", "max_clients_per_user", KEY_NUMBER, AT(max_clients_per_user), 1, 65536},
    {"daemon", "grant_device", KEY_BOOLEAN, AT(grant_device), 0, 0},
    {"peer", "listen", KEY_STRING, AT(listen), 0, 0},
    {"peer", "advertise", KEY_STRING, AT(advertise), 0, 0},
    {"peer", "insecure_plaintext", KEY_BOOLEAN, AT(insecure_plaintext), 0, 0},
    {"peer", "ping_ms", KEY_NUMBER, AT(import.ping_ms), 50, 5000},
    {"peer", "transport", KEY_TRANSPORT, AT(transport), 0, 0},
    {"rdma", "networks", KEY_NETWORKS, AT(rdma_networks), 0, 0},
    {"rdma", "peers", KEY_PEERS, AT(rdma_peers), 0, 0},
    {"rdma", "pinned", KEY_BYTES, AT(rdma_pinned), 8 << 20, G_GUINT64_CONSTANT(512) << 30},
    {"import", "resolvers", KEY_NUMBER, AT(import.resolvers), 0, IMPORT_RESOLVERS_MAX},
    {"import", "dispatch", KEY_DISPATCH, AT(import.dispatch), 0, 0},
    {"import", "shards", KEY_NUMBER, AT(import.shards), 0, 256},
    {"import", "bulk_channels", KEY_NUMBER, AT(import.bulk_channels), 1, STREAM_CHANNELS_MAX},
    {"import", "around", KEY_BYTES, AT(import.around), 4096, 1 << 20},
    {"import", "chunk", KEY_BYTES, AT(import.chunk), 4096, PEER_READ_MAX},
    {"import", "window", KEY_BYTES, AT(import.window), 65536, G_GUINT64_CONSTANT(256) << 20},
    {"import", "busy_poll_us", KEY_MEASURED, AT(import.busy_poll_us), 0, 1000},
    {"import", "preallocate", KEY_BOOLEAN, AT(import.preallocate), 0, 0},
    {"import", "limit", KEY_RATE, AT(limit), 0, 0},
    {"import", "vm_limit", KEY_RATE, AT(vm_limit), 0, 0},
    {"import", "stream_delay_ms", KEY_NUMBER, AT(import.stream_delay_ms), 0, 60000},
    {"import", "head_start_ms", KEY_NUMBER, AT(import.head_start_ms), 0, 10000},
    {"libvirt", "uri", KEY_STRING, AT(libvirt_uri), 0, 0},
    {"libvirt", "start_postcopy", KEY_NUMBER, AT(start_postcopy), 0, 1000},
    {"libvirt", "enable", KEY_ENABLE, AT(libvirt_enable), 0, 0},
    {"libvirt", "source_port", KEY_NUMBER, AT(source_port), 1, 65535},
    {"libvirt", "source", KEY_STRING, AT(source), 0, 0},
};

static GQuark config_error(void)
{
    return g_quark_from_static_string("postcopyd-config");
}

static void set_defaults(Settings *settings)
{
    memset(settings, 0, sizeof *settings);
    settings->socket = g_strdup(POSTCOPYD_SOCKET);
    settings->runtime_dir = g_strdup(POSTCOPYD_RUN_DIR);
    settings->max_clients = 4096;
    settings->max_clients_per_user = 1024;
    settings->listen = g_strdup(POSTCOPYD_LISTEN);
    settings->grant_device = TRUE;
    settings->start_postcopy = 1;
    settings->source_port = 16520;
    settings->rdma_pinned = G_GUINT64_CONSTANT(1) << 30;
    settings->import = (ImportConfig){
        .bulk_channels = 1,
        .around = 256 << 10,
        .chunk = 256 << 10,
        .window = 16 << 20,
        .ping_ms = 1000,
        .stream_delay_ms = 2000,
        .head_start_ms = 2000,
        .busy_poll_us = SETTINGS_MEASURED,
        .preallocate = TRUE,
    };
}

static const Key *find_key(const char *group, const char *name)
{
    for (gsize i = 0; i < G_N_ELEMENTS(keys); i++)
        if (strcmp(keys[i].group, group) == 0 && strcmp(keys[i].name, name) == 0)
            return &keys[i];
    return NULL;
}

/* "2M" and the like.  FALSE also for what no 64 bits hold. */
static gboolean parse_number(const char *text, gboolean bytes, guint64 *ret_value)
{
    unsigned shift = 0;
    guint64 value;
    char *end;

    if (!g_ascii_isdigit(text[0]))
        return FALSE;
    errno = 0;
    value = g_ascii_strtoull(text, &end, 10);
    if (errno)
        return FALSE;
    if (bytes && (*end == 'K' || *end == 'M' || *end == 'G')) {
        shift = *end == 'K' ? 10 : *end == 'M' ? 20 : 30;
        end++;
    }
    if (value > G_MAXUINT64 >> shift)
        return FALSE;
    *ret_value = value << shift;
    return *end == '\0';
}

static gboolean store_number(const Key *key, const char *text, void *at, GError **error)
{
    guint64 value;

    if (key->kind == KEY_MEASURED && strcmp(text, "auto") == 0) {
        *(unsigned *)at = SETTINGS_MEASURED;
        return TRUE;
    }
    if (!parse_number(text, key->kind == KEY_BYTES, &value) || value < key->low ||
        value > key->high) {
        g_set_error(error, config_error(), 0,
                    "[%s] %s = %s: must be %sa number from %" G_GUINT64_FORMAT
                    " to %" G_GUINT64_FORMAT "%s",
                    key->group, key->name, text, key->kind == KEY_MEASURED ? "auto or " : "",
                    key->low, key->high,
                    key->kind == KEY_BYTES ? " (bytes; K, M and G are understood)" : "");
        return FALSE;
    }
    if (key->kind == KEY_BYTES)
        *(guint64 *)at = value;
    else
        *(unsigned *)at = (unsigned)value;
    return TRUE;
}

static gboolean store_rate(const Key *key, const char *text, void *at, GError **error)
{
    if (rate_from_text(text, at) == 0)
        return TRUE;
    g_set_error(error, config_error(), 0, "[%s] %s = %s: must be a rate: %s", key->group, key->name,
                text, RATE_TEXT);
    return FALSE;
}

/* One of some words, by its place. */
static gboolean store_word(const Key *key, const char *const *words, unsigned n, const char *text,
                           unsigned *at, GError **error)
{
    g_autoptr(GString) all = g_string_new(NULL);

    for (unsigned i = 0; i < n; i++) {
        if (strcmp(text, words[i]) == 0) {
            *at = i;
            return TRUE;
        }
        g_string_append_printf(all, "%s%s", i == 0 ? "" : i + 1 == n ? " or " : ", ", words[i]);
    }
    g_set_error(error, config_error(), 0, "[%s] %s = %s: must be %s", key->group, key->name, text,
                all->str);
    return FALSE;
}

/* Lists of networks, each with a transport or without. */
static gboolean store_networks(const Key *key, const char *text, NetworkList *at, GError **error)
{
    char reason[LIMIT_TEXT + 1] = "";
    Networks *parsed = key->kind == KEY_PEERS
                           ? networks_parse_words(text, transports, IMPORT_TRANSPORTS, reason)
                           : networks_parse(text, reason);

    if (!parsed) {
        g_set_error(error, config_error(), 0, "[%s] %s: %s", key->group, key->name, reason);
        return FALSE;
    }
    networks_free(at->parsed);
    g_free(at->text);
    at->parsed = parsed;
    at->text = text[0] ? g_strdup(text) : NULL;
    return TRUE;
}

static gboolean store(Settings *settings, const Key *key, const char *text, GError **error)
{
    void *at = (char *)settings + key->offset;

    switch (key->kind) {
    case KEY_STRING:
        g_free(*(char **)at);
        *(char **)at = text[0] ? g_strdup(text) : NULL;
        return TRUE;
    case KEY_BOOLEAN:
        if (strcmp(text, "yes") != 0 && strcmp(text, "no") != 0) {
            g_set_error(error, config_error(), 0, "[%s] %s = %s: must be yes or no", key->group,
                        key->name, text);
            return FALSE;
        }
        *(gboolean *)at = strcmp(text, "yes") == 0;
        return TRUE;
    case KEY_RATE:
        return store_rate(key, text, at, error);
    case KEY_DISPATCH:
        return store_word(key, dispatches, IMPORT_DISPATCHES, text, at, error);
    case KEY_ENABLE:
        return store_word(key, enables, LIBVIRT_ENABLES, text, at, error);
    case KEY_TRANSPORT:
        return store_word(key, transports, IMPORT_TRANSPORTS, text, at, error);
    case KEY_NETWORKS:
    case KEY_PEERS:
        return store_networks(key, text, at, error);
    default:
        return store_number(key, text, at, error);
    }
}

static gboolean has_group(const char *group)
{
    for (gsize i = 0; i < G_N_ELEMENTS(keys); i++)
        if (strcmp(keys[i].group, group) == 0)
            return TRUE;
    return FALSE;
}

static gboolean load_group(Settings *settings, GKeyFile *file, const char *group, GError **error)
{
    g_auto(GStrv) names = g_key_file_get_keys(file, group, NULL, error);

    if (!has_group(group)) {
        g_clear_error(error);
        g_set_error(error, config_error(), 0, "there is no section [%s]", group);
        return FALSE;
    }
    for (gsize i = 0; names && names[i]; i++) {
        const Key *key = find_key(group, names[i]);
        g_autofree char *text = g_key_file_get_string(file, group, names[i], error);

        if (!key) {
            g_clear_error(error);
            g_set_error(error, config_error(), 0, "[%s] has no key '%s'", group, names[i]);
            return FALSE;
        }
        if (!text || !store(settings, key, g_strstrip(text), error))
            return FALSE;
    }
    return names != NULL;
}

static gboolean load_file(Settings *settings, const char *path, GError **error)
{
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_auto(GStrv) groups = NULL;
    g_autofree char *text = NULL;
    gsize length;

    /* GLib would take a zero byte for the end of the file. */
    if (g_file_get_contents(path, &text, &length, NULL) && memchr(text, '\0', length)) {
        g_set_error(error, config_error(), 0,
                    "%s: holds a zero byte: it is damaged, or not a text file", path);
        return FALSE;
    }
    if ((text && !config_lines_check(text, error)) ||
        !g_key_file_load_from_file(file, path, G_KEY_FILE_NONE, error)) {
        g_prefix_error(error, "%s: ", path);
        return FALSE;
    }
    groups = g_key_file_get_groups(file, NULL);
    for (gsize i = 0; groups[i]; i++)
        if (!load_group(settings, file, groups[i], error)) {
            g_prefix_error(error, "%s: ", path);
            return FALSE;
        }
    return TRUE;
}

static gboolean check_address(const char *what, const char *text, GError **error)
{
    Address address;

    if (text && address_parse(text, &address)) {
        g_set_error(
            error, config_error(), 0,
            "%s %s: must be HOST:PORT, with a port up to 65535 and an IPv6 address in brackets",
            what, text);
        return FALSE;
    }
    return TRUE;
}

/* Other hosts may know another host by that name, or take long to find out. */
static gboolean check_advertise(const char *text, GError **error)
{
    Address address;

    if (!check_address("[peer] advertise", text, error))
        return FALSE;
    if (text && address_parse(text, &address) == 0 && address.host[0] != '\0' &&
        !address_is_numeric(&address)) {
        g_set_error(
            error, config_error(), 0,
            "[peer] advertise %s: must be a numeric address, other daemons do not look names up",
            text);
        return FALSE;
    }
    return TRUE;
}

/* Until there is TLS nothing but loopback is listened on unless somebody says so. */
static gboolean check_plaintext(const Settings *settings, GError **error)
{
    Address address;

    if (address_parse(settings->listen, &address) == 0 && !address_is_loopback(&address) &&
        !settings->insecure_plaintext) {
        g_set_error(error, config_error(), 0,
                    "listening on %s would send guests' memory unencrypted over the network: set "
                    "insecure_plaintext=yes in [peer] if that network is trusted",
                    settings->listen);
        return FALSE;
    }
    return TRUE;
}

static gboolean check_group(const char *name, GError **error)
{
    if (!name || !*name || getgrnam(name))
        return TRUE;
    g_set_error(error, config_error(), 0,
                "group '%s' does not exist: create it, or change the config", name);
    return FALSE;
}

static gboolean check(Settings *settings, GError **error)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    if (!settings->socket || !settings->runtime_dir || !settings->listen) {
        g_set_error(error, config_error(), 0, "socket, runtime_dir and listen must not be empty");
        return FALSE;
    }
    if (strlen(settings->socket) > 107) {
        g_set_error(error, config_error(), 0, "socket %s: longer than 107 bytes", settings->socket);
        return FALSE;
    }
    if (settings->import.resolvers == 0)
        settings->import.resolvers = (unsigned)CLAMP(cores / 2, 1, IMPORT_RESOLVERS_MAX);
    if (settings->import.shards == 0)
        settings->import.shards = settings->import.resolvers;
    return check_address("[peer] listen", settings->listen, error) &&
           check_address("[libvirt] source", settings->source, error) &&
           check_advertise(settings->advertise, error) && check_plaintext(settings, error) &&
           check_group(settings->group, error) && check_group(settings->operator_group, error);
}

static gboolean check_rdma(const Settings *settings, CommandLine *command, GError **error)
{
    g_autoptr(GError) local = NULL;

    if (config_rdma_check(settings, &command->warning, &local))
        return TRUE;
    if (command->check_only) {
        g_propagate_error(error, g_steal_pointer(&local));
        return FALSE;
    }
    command->warning = g_strdup(local->message);
    return TRUE;
}

gboolean config_load(int *argc, char ***argv, Settings *ret_settings, CommandLine *ret_command,
                     GError **error)
{
    g_autofree char *path = NULL, *socket = NULL, *listen = NULL;
    const GOptionEntry entries[] = {
        {"config", 'c', 0, G_OPTION_ARG_FILENAME, &path, "Config file", "FILE"},
        {"socket", 's', 0, G_OPTION_ARG_FILENAME, &socket, "UNIX socket for clients", "PATH"},
        {"listen", 'l', 0, G_OPTION_ARG_STRING, &listen, "Address for other daemons", "HOST:PORT"},
        {"check", 0, 0, G_OPTION_ARG_NONE, &ret_command->check_only,
         "Check the configuration and exit", NULL},
        {"version", 0, 0, G_OPTION_ARG_NONE, &ret_command->show_version, "Show the version", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    g_autoptr(GOptionContext) context = g_option_context_new("- post-copy migration daemon");
    const char *read;

    set_defaults(ret_settings);
    memset(ret_command, 0, sizeof *ret_command);
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, argc, argv, error))
        return FALSE;
    if (*argc > 1) {
        g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_FAILED,
                    "unknown argument '%s', see --help", (*argv)[1]);
        return FALSE;
    }
    read = path                                                     ? path
           : g_file_test(POSTCOPYD_CONFIG_FILE, G_FILE_TEST_EXISTS) ? POSTCOPYD_CONFIG_FILE
                                                                    : NULL;
    if (read && !load_file(ret_settings, read, error))
        return FALSE;
    if (socket)
        store(ret_settings, find_key("daemon", "socket"), socket, NULL);
    if (listen)
        store(ret_settings, find_key("peer", "listen"), listen, NULL);
    if (check(ret_settings, error) && check_rdma(ret_settings, ret_command, error)) {
        ret_command->file = ret_command->check_only ? g_strdup(read) : NULL;
        return TRUE;
    }
    if (read && !socket && !listen)
        g_prefix_error(error, "%s: ", read);
    return FALSE;
}
