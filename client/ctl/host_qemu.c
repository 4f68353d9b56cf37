/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/host_qemu.h"

#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

enum {
    QEMU_IGNORE_SHARED = 4000, /* has x-ignore-shared */
    QEMU_NAMED_ONLY = 8001,    /* which leaves out named files only from here on */
};

int host_qemu_version(const char *text)
{
    const char *word = strstr(text, "version ");
    char *end;
    guint64 major, minor;

    if (!word)
        return 0;
    major = g_ascii_strtoull(word + strlen("version "), &end, 10);
    if (*end != '.')
        return 0;
    minor = g_ascii_strtoull(end + 1, NULL, 10);
    return major < 1000 && minor < 1000 ? (int)(major * 1000 + minor) : 0;
}

static int ask_version(const char *path)
{
    const char *const words[] = {path, "--version", NULL};
    g_autofree char *text = NULL;
    int status;

    if (!g_spawn_sync(NULL, (char **)words, NULL, G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &text,
                      NULL, &status, NULL))
        return 0;
    return host_qemu_version(text);
}

static void say_version(HostCheck *check, const char *path, int version)
{
    g_autofree char *name = g_strdup_printf("%s %d.%d", path, version / 1000, version % 1000);

    if (version == 0)
        host_say(check, "qemu", HOST_WARN, NULL, "%s does not tell its version", path);
    else if (version < QEMU_IGNORE_SHARED)
        host_say(check, "qemu", HOST_WARN, "use QEMU 4.0 or newer for direct mode",
                 "%s: assist mode only", name);
    else if (version < QEMU_NAMED_ONLY)
        host_say(check, "qemu", HOST_OK, NULL, "%s: assist mode, and direct mode for shared memory",
                 name);
    else
        host_say(check, "qemu", HOST_OK, NULL,
                 "%s: assist mode, and direct mode for shared memory in named files "
                 "(memory-backend-file on a tmpfs or hugetlbfs), not for memfds",
                 name);
}

void host_check_qemu(HostCheck *check)
{
    struct utsname name;
    g_autofree char *system = NULL;
    const char *paths[3] = {NULL, "/usr/libexec/qemu-kvm", "/usr/bin/kvm"};
    gboolean found = FALSE;

    uname(&name);
    system = g_strdup_printf("/usr/bin/qemu-system-%s", name.machine);
    paths[0] = system;
    for (guint i = 0; i < G_N_ELEMENTS(paths) && !found; i++)
        if (access(paths[i], X_OK) == 0) {
            say_version(check, paths[i], ask_version(paths[i]));
            found = TRUE;
        }
    if (!found)
        host_say(check, "qemu", HOST_WARN, NULL, "no %s: how guests are run here is not known",
                 system);
}
