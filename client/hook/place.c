/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/hook/place.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/operator/apparmor.h"
#include "paths.h"
#include "protocol/qmp/error.h"
#include "protocol/qmp/libvirt_pid.h"
#include "protocol/qmp/second_monitor.h"

/* libvirt's own environment is its administrator's. */
static char *from_environment(const char *name, const char *otherwise)
{
    const char *value = g_getenv(name);

    return g_strdup(value && *value ? value : otherwise);
}

gboolean place_init(Place *place, const char *name, const char *uuid, GError **error)
{
    memset(place, 0, sizeof *place);
    if (!g_uuid_string_is_valid(uuid) || !*name || strchr(name, '/')) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "the XML has no usable name and uuid");
        return FALSE;
    }
    place->config = host_config_load(g_getenv("POSTCOPYD_CONFIG"));
    place->preload = from_environment("POSTCOPYD_PRELOAD", POSTCOPYD_PRELOAD);
    place->run_folder = g_strdup(libvirt_run_folder());
    place->name = g_strdup(name);
    place->uuid = g_ascii_strdown(uuid, -1);
    place->monitor = second_monitor_path(place->run_folder, place->name);
    return TRUE;
}

void place_deinit(Place *place)
{
    g_clear_pointer(&place->config, host_config_free);
    g_clear_pointer(&place->preload, g_free);
    g_clear_pointer(&place->run_folder, g_free);
    g_clear_pointer(&place->name, g_free);
    g_clear_pointer(&place->uuid, g_free);
    g_clear_pointer(&place->monitor, g_free);
}

static gboolean fail(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

static gboolean fail(GError **error, const char *format, ...)
{
    va_list arguments;
    g_autofree char *text = NULL;

    va_start(arguments, format);
    text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error_literal(error, CALL_ERROR, CALL_ERROR_FAILED, text);
    return FALSE;
}

gboolean place_check(const Place *place, GError **error)
{
    g_autofree char *folder = second_monitor_folder(place->run_folder);
    struct stat status;

    if (!place->config->readable)
        return fail(error, "%s cannot be read; see postcopyd --check", place->config->path);
    if (access(place->preload, R_OK))
        return fail(error, "%s: %s; install postcopyd anew", place->preload, g_strerror(errno));
    if (strpbrk(place->preload, " :"))
        return fail(error, "%s has a space or colon in its path, which LD_PRELOAD cannot hold",
                    place->preload);
    if (stat(folder, &status) || !S_ISDIR(status.st_mode))
        return fail(error, "%s is no folder; libvirt 6.0 and newer make it", folder);
    if (strlen(place->monitor) >= sizeof((struct sockaddr_un *)0)->sun_path)
        return fail(error, "%s is too long for a socket; give the domain a shorter name",
                    place->monitor);
    if (apparmor_state("") == APPARMOR_FORBIDS)
        return fail(error, "AppArmor does not let QEMU have %s; put the rules of %s into %s",
                    place->preload, POSTCOPYD_APPARMOR_RULES,
                    "/etc/apparmor.d/local/abstractions/libvirt-qemu");
    /* Where SELinux confines them, a QEMU may not remove what another guest's left. */
    place_remove_stale(place);
    if (lstat(place->monitor, &status) == 0)
        return fail(error, "%s is in use", place->monitor);
    return TRUE;
}

/* Nobody accepts there any more. */
static gboolean is_deserted(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    gboolean result;
    int fd;

    if (g_strlcpy(address.sun_path, path, sizeof address.sun_path) >= sizeof address.sun_path)
        return FALSE;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return FALSE;
    result =
        connect(fd, (const struct sockaddr *)&address, sizeof address) < 0 && errno == ECONNREFUSED;
    close(fd);
    return result;
}

void place_remove_stale(const Place *place)
{
    struct stat status;

    if (lstat(place->monitor, &status) == 0 && S_ISSOCK(status.st_mode) &&
        is_deserted(place->monitor))
        unlink(place->monitor);
}

void place_close_to_others(const Place *place)
{
    g_autofree char *path = NULL;
    struct stat status;
    int fd = open(place->monitor, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return;
    path = g_strdup_printf("/proc/self/fd/%d", fd);
    if (fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode))
        chmod(path, 0600);
    close(fd);
}

pid_t place_pid(const Place *place)
{
    return libvirt_pid(place->run_folder, place->name, NULL);
}
