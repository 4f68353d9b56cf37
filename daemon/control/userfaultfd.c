/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/userfaultfd.h"

#include <linux/userfaultfd.h>
#include <poll.h>
#include <string.h>

#include "daemon/core/digits.h"

static gboolean is_userfaultfd(int fd)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
    g_autofree char *link = fd >= 0 ? g_file_read_link(path, NULL) : NULL;

    return g_strcmp0(link, "anon_inode:[userfaultfd]") == 0;
}

/* UFFD_FEATURE_*; all of them if the kernel does not say.  It does as "API:\tVERSION:FEATURES:KNOWN", in hex. */
static guint64 features_of(int fd)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fdinfo/%d", fd);
    g_autofree char *text = NULL;
    guint64 version, features;
    const char *at;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return G_MAXUINT64;
    at = strstr(text, "\nAPI:\t");
    if (!at)
        return G_MAXUINT64;
    at += strlen("\nAPI:\t");
    return digits_take(&at, 16, ":", &version) && digits_take(&at, 16, ":", &features)
               ? features
               : G_MAXUINT64;
}

/* Before UFFDIO_API it has no features yet, and its owner could still choose them; the kernel says so by an
 * error, as it does of one that blocks. */
static gboolean is_set_up(int fd)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};

    return poll(&poller, 1, 0) >= 0 && !(poller.revents & (POLLERR | POLLNVAL));
}

gboolean userfaultfd_may_be_served(int fd, gboolean events)
{
    guint64 unwanted = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP;

    if (!events)
        unwanted |= UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP;
    return is_userfaultfd(fd) && is_set_up(fd) && (features_of(fd) & unwanted) == 0;
}
