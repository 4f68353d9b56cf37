/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "protocol/qmp/second_monitor.h"

#include <string.h>

#include "paths.h"

char *second_monitor_folder(const char *run_folder)
{
    return g_build_filename(run_folder ? run_folder : POSTCOPYD_LIBVIRT_RUN,
                            POSTCOPYD_MONITOR_FOLDER, NULL);
}

char *second_monitor_path(const char *run_folder, const char *name)
{
    g_autofree char *folder = second_monitor_folder(run_folder);
    g_autofree char *file = g_strconcat(POSTCOPYD_MONITOR_PREFIX, name, NULL);

    if (!*name || strchr(name, '/'))
        return NULL;
    return g_build_filename(folder, file, NULL);
}
