/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/connection_regions.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "daemon/control/arrival.h"
#include "daemon/control/arrival_regions.h"
#include "daemon/control/awaited.h"
#include "daemon/control/departure.h"

/* Private memory is read through its process, its file is of no use. */
gboolean connection_take_file(const Connection *connection, const ClientRegion *region, int *ret_fd,
                              char *ret_text)
{
    int fd = region->fd >= 0 ? connection->channel.fds[region->fd] : -1;

    *ret_fd = -1;
    if (region->kind != CLIENT_REGION_SHARED || (region->flags & CLIENT_REGION_ABSENT))
        return TRUE;
    if (!region_file_is_memory(fd)) {
        g_snprintf(ret_text, LIMIT_TEXT + 1,
                   "region '%s' is in a file on a disk or of another kind: its memory has to be a "
                   "memfd or a file on tmpfs or hugetlbfs",
                   region->id);
        return FALSE;
    }
    *ret_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (*ret_fd < 0)
        g_snprintf(ret_text, LIMIT_TEXT + 1, "cannot keep the RAM fd: %s", strerror(errno));
    return *ret_fd >= 0;
}

gboolean connection_take_regions(Connection *connection, const ClientHello *hello, char *ret_text)
{
    for (guint32 i = 0; i < hello->n_regions; i++) {
        int fd;

        if ((hello->regions[i].flags & CLIENT_REGION_ABSENT) && hello->role == CLIENT_ROLE_SOURCE) {
            g_snprintf(ret_text, LIMIT_TEXT + 1, "a source's region '%s' cannot be absent",
                       hello->regions[i].id);
            return FALSE;
        }
        if (!connection_take_file(connection, &hello->regions[i], &fd, ret_text))
            return FALSE;
        region_init(&connection->regions.regions[i], &hello->regions[i], fd);
        connection->regions.n = i + 1;
    }
    if (!region_set_overlaps(&connection->regions))
        return TRUE;
    g_snprintf(ret_text, LIMIT_TEXT + 1, "two of its regions overlap");
    return FALSE;
}

static gboolean is_busy(const Connection *connection)
{
    return (connection->arrival && arrival_is_open(connection->arrival)) ||
           (connection->departure && !departure_is_over(connection->departure));
}

/* Those behind it move up; set->n: none. */
static void drop(RegionSet *set, guint32 index)
{
    if (index >= set->n)
        return;
    if (set->regions[index].fd >= 0)
        close(set->regions[index].fd);
    set->n--;
    memmove(&set->regions[index], &set->regions[index + 1],
            (set->n - index) * sizeof set->regions[0]);
}

void connection_add_region(Connection *connection)
{
    const ClientMessage *message = connection->control->message;
    RegionSet *set = &connection->regions;
    guint32 serial = message->serial;
    char text[LIMIT_TEXT + 1];
    int fd;

    if (connection->arrival && arrival_is_open(connection->arrival)) {
        arrival_add_region(connection);
        return;
    }
    if (message->region.flags & CLIENT_REGION_ABSENT) {
        connection_send_status(connection, CLIENT_ERROR, serial, -EINVAL, 0,
                               "an absent region cannot be added");
        return;
    }
    if (is_busy(connection) || set->n == LIMIT_REGIONS) {
        connection_send_status(connection, CLIENT_ERROR, serial, -EBUSY, 0,
                               "regions cannot change while the VM moves");
        return;
    }
    if (!connection_take_file(connection, &message->region, &fd, text)) {
        connection_send_status(connection, CLIENT_ERROR, serial, -EINVAL, 0, text);
        return;
    }
    drop(set, region_set_find_absent(set, &message->region));
    region_init(&set->regions[set->n++], &message->region, fd);
    if (region_set_overlaps(set)) {
        if (fd >= 0)
            close(fd);
        set->n--;
        connection_send_status(connection, CLIENT_ERROR, serial, -EINVAL, 0,
                               "the region overlaps another");
        return;
    }
    connection_send_simple(connection, CLIENT_OK, serial);
    awaited_client_changed(connection);
}

void connection_remove_region(Connection *connection)
{
    const ClientMessage *message = connection->control->message;
    RegionSet *set = &connection->regions;

    if (connection->arrival && arrival_is_open(connection->arrival)) {
        arrival_remove_region(connection);
        return;
    }
    for (guint32 i = 0; i < set->n && !is_busy(connection); i++) {
        if (set->regions[i].absent || set->regions[i].address != message->region.address)
            continue;
        drop(set, i);
        connection_send_simple(connection, CLIENT_OK, message->serial);
        return;
    }
    connection_send_status(connection, CLIENT_ERROR, message->serial, -EINVAL, 0,
                           "there is no such region, or the VM moves");
}
