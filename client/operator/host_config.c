/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/operator/host_config.h"

#include <string.h>

#include "paths.h"

static char *value(GKeyFile *file, const char *group, const char *key, const char *otherwise)
{
    g_autofree char *text = g_key_file_get_string(file, group, key, NULL);

    return g_strdup(text && *g_strstrip(text) ? text : otherwise);
}

HostConfig *host_config_load(const char *path)
{
    HostConfig *config = g_new0(HostConfig, 1);
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autofree char *enable = NULL, *plaintext = NULL;
    g_autoptr(GError) error = NULL;

    config->path = g_strdup(path ? path : POSTCOPYD_CONFIG_FILE);
    config->readable = g_key_file_load_from_file(file, config->path, G_KEY_FILE_NONE, &error) ||
                       g_error_matches(error, G_FILE_ERROR, G_FILE_ERROR_NOENT);
    config->socket = value(file, "daemon", "socket", POSTCOPYD_SOCKET);
    config->listen = value(file, "peer", "listen", POSTCOPYD_LISTEN);
    plaintext = value(file, "peer", "insecure_plaintext", "no");
    config->insecure_plaintext = strcmp(plaintext, "yes") == 0;
    config->libvirt_uri = value(file, "libvirt", "uri", "");
    enable = value(file, "libvirt", "enable", "opted");
    config->enable_all = strcmp(enable, "all") == 0;
    return config;
}

void host_config_free(HostConfig *config)
{
    if (!config)
        return;
    g_free(config->path);
    g_free(config->socket);
    g_free(config->listen);
    g_free(config->libvirt_uri);
    g_free(config);
}
