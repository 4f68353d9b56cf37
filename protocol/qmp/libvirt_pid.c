/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "protocol/qmp/libvirt_pid.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "paths.h"
#include "protocol/qmp/error.h"

const char *libvirt_run_folder(void)
{
    const char *folder = g_getenv("POSTCOPYD_LIBVIRT_RUN");

    return folder && *folder ? folder : POSTCOPYD_LIBVIRT_RUN;
}

static gboolean is_trusted(int fd)
{
    struct stat status;

    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
           (status.st_uid == 0 || status.st_uid == geteuid());
}

/* 0: it is no decimal number, with or without the end of a line. */
static pid_t parse(const char *text)
{
    char *end;
    gint64 pid = g_ascii_strtoll(text, &end, 10);

    return g_ascii_isdigit(text[0]) && (*end == '\0' || strcmp(end, "\n") == 0) && pid <= G_MAXINT32
               ? (pid_t)pid
               : 0;
}

pid_t libvirt_pid(const char *folder, const char *name, GError **error)
{
    g_autofree char *file = g_strconcat(name, ".pid", NULL);
    g_autofree char *path = g_build_filename(folder, file, NULL);
    char text[32] = "";
    ssize_t length = -1;
    pid_t pid = 0;
    int fd = strchr(name, '/') ? -1 : open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    int reason = fd < 0 ? errno : 0;

    if (fd >= 0 && is_trusted(fd))
        length = read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    if (length > 0)
        pid = parse(text);
    if (pid <= 0)
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                    "which process is the domain's cannot be told from libvirt's %s: %s", path,
                    fd < 0 ? g_strerror(reason) : "it holds no pid, or is not libvirt's own file");
    return pid;
}
