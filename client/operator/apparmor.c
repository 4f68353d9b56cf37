/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/operator/apparmor.h"

#include <string.h>

static char *read_below(const char *root, const char *path)
{
    g_autofree char *whole = g_strconcat(root, path, NULL);
    char *text = NULL;

    return g_file_get_contents(whole, &text, NULL, NULL) ? text : NULL;
}

static gboolean says(const char *root, const char *path, const char *word)
{
    g_autofree char *text = read_below(root, path);

    return text && strstr(text, word);
}

/* libvirt's own switch: with another driver, or none, its QEMUs are not confined. */
static gboolean driver_is_other(const char *root)
{
    g_autofree char *text = read_below(root, "/etc/libvirt/qemu.conf");
    g_auto(GStrv) lines = g_strsplit(text ? text : "", "\n", -1);

    for (guint i = 0; lines[i]; i++)
        if (g_str_has_prefix(g_strstrip(lines[i]), "security_driver") &&
            !strstr(lines[i], "apparmor"))
            return TRUE;
    return FALSE;
}

AppArmor apparmor_state(const char *root)
{
    static const char *const ours[] = {
        "/etc/apparmor.d/local/abstractions/libvirt-qemu",
        "/etc/apparmor.d/abstractions/libvirt-qemu.d/postcopyd",
        "/etc/apparmor.d/abstractions/libvirt-qemu",
    };
    g_autofree char *enabled = read_below(root, "/sys/module/apparmor/parameters/enabled");

    if (!enabled || enabled[0] != 'Y' ||
        !says(root, "/etc/apparmor.d/libvirt/TEMPLATE.qemu", "libvirt-qemu") ||
        driver_is_other(root))
        return APPARMOR_ABSENT;
    for (guint i = 0; i < G_N_ELEMENTS(ours); i++)
        if (says(root, ours[i], "libpostcopy-qemu.so"))
            return APPARMOR_ALLOWS;
    return APPARMOR_FORBIDS;
}
