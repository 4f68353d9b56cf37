/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/arrival_regions.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/control/connection_regions.h"
#include "daemon/control/userfaultfd.h"
#include "daemon/core/log.h"
#include "daemon/fault/hotplug.h"

/* --- shards -------------------------------------------------------------------------------- */

Shard *arrival_take_shards(Connection *connection, const ClientShard *shards, guint32 n,
                           guint32 first)
{
    Shard *result = calloc(n ? n : 1, sizeof *result);
    gboolean all = result != NULL;

    for (guint32 i = 0; i < n && result; i++) {
        const Region *region = &connection->regions.regions[shards[i].region];
        result[i] = (Shard){
            .uffd = client_channel_take_fd(&connection->channel, first + i),
            .region = shards[i].region,
            .start = region->address + shards[i].start,
            .length = shards[i].length,
            .minor = (shards[i].flags & CLIENT_SHARD_MINOR) != 0,
            .removable = (shards[i].flags & CLIENT_SHARD_EVENTS) != 0,
        };
        all = all && userfaultfd_may_be_served(result[i].uffd, result[i].removable);
    }
    for (guint32 i = 0; i < n && result && !all; i++)
        if (result[i].uffd >= 0)
            close(result[i].uffd);
    if (all)
        return result;
    free(result);
    return NULL;
}

gboolean arrival_pages_fit(const RegionSet *regions, char *ret_text)
{
    for (guint32 i = 0; i < regions->n; i++) {
        const Region *region = &regions->regions[i];
        if (region->page_size <= PEER_PAGE_SIZE_MAX)
            continue;
        g_snprintf(ret_text, LIMIT_TEXT + 1,
                   "region '%s' has pages of %" G_GUINT64_FORMAT
                   " MiB: memory can arrive in pages of at most %" G_GUINT64_FORMAT " MiB",
                   region->id, region->page_size >> 20, (guint64)PEER_PAGE_SIZE_MAX >> 20);
        return FALSE;
    }
    return TRUE;
}

gboolean arrival_shards_fit(const Connection *connection, const ClientHello *hello)
{
    for (guint32 i = 0; i < hello->n_shards; i++) {
        const Region *region = &connection->regions.regions[hello->shards[i].region];
        if (region->absent || hello->shards[i].start > region->length ||
            hello->shards[i].length > region->length - hello->shards[i].start ||
            (hello->shards[i].start | hello->shards[i].length) & (region->page_size - 1))
            return FALSE;
    }
    return TRUE;
}

/* --- one that comes ------------------------------------------------------------------------ */

/* The change is over, well or not. */
static void answer(Arrival *arrival, int status, const char *text)
{
    Change change = arrival->change;

    arrival->change.kind = CHANGE_NONE;
    if (!arrival->connection || !change.asked)
        return;
    if (status == 0)
        connection_send_simple(arrival->connection, CLIENT_OK, change.serial);
    else
        connection_send_status(arrival->connection, CLIENT_ERROR, change.serial, status, 0, text);
}

static void refuse(Connection *connection, int status, const char *text)
{
    log_warning("%s: a change of its regions is refused: %s", connection_vm(connection), text);
    connection_send_status(connection, CLIENT_ERROR, connection->control->message->serial, status,
                           0, text);
}

/* NULL: regions may come and go now. */
static const char *why_not_now(const Arrival *arrival)
{
    if (arrival->stage != ARRIVAL_READY || import_is_halted(arrival->import))
        return "regions can change while the VM's memory is served, not before and not after";
    if (arrival->change.kind != CHANGE_NONE)
        return "another region is coming or going: wait for that";
    return NULL;
}

static void begin(Arrival *arrival, ChangeKind kind, guint32 region, guint32 serial)
{
    arrival->change = (Change){.kind = kind, .region = region, .asked = TRUE, .serial = serial};
}

static void send_arm(Arrival *arrival)
{
    Control *control = arrival->control;
    ClientMessage *reply = control->reply;
    gboolean device = control->uffd_device >= 0;

    reply->type = CLIENT_ARM;
    reply->serial = arrival->arm_serial = ++arrival->connection->next_serial;
    reply->arm.flags = CLIENT_ARM_REGION | (device ? CLIENT_ARM_DEVICE : 0);
    reply->arm.table_size = arrival->import->table.size;
    reply->arm.n_shards = arrival->n_shards;
    memcpy(reply->arm.shards, arrival->shards, arrival->n_shards * sizeof arrival->shards[0]);
    connection_send(arrival->connection, &control->uffd_device, device ? 1 : 0);
}

/* The connection's picture of the region, as the message describes it.  False with a line. */
static gboolean map_region(Arrival *arrival, guint32 index, const ClientRegion *as, char *ret_text)
{
    Region *region = &arrival->connection->regions.regions[index];
    guint64 source = arrival->source_files[index];
    int fd;

    if (!connection_take_file(arrival->connection, as, &fd, ret_text))
        return FALSE;
    region_make_absent(region); /* whatever its client said of it when it came back */
    region_init(region, as, fd);
    if (region_set_overlaps(&arrival->connection->regions))
        g_strlcpy(ret_text, "the region overlaps another", LIMIT_TEXT + 1);
    else if (source != 0 && region_backing(region) == source)
        g_strlcpy(ret_text, "the region is the source's own memory: give it a file of its own",
                  LIMIT_TEXT + 1);
    else
        return TRUE;
    region_make_absent(region);
    return FALSE;
}

void arrival_add_region(Connection *connection)
{
    const ClientMessage *message = connection->control->message;
    Arrival *arrival = connection->arrival;
    const char *reason = why_not_now(arrival);
    char text[LIMIT_TEXT + 1];
    guint32 index, serial = message->serial;

    if (reason) {
        refuse(connection, -EBUSY, reason);
        return;
    }
    index = region_set_find_absent(&arrival->import->regions, &message->region);
    if (index == arrival->import->regions.n || (message->region.flags & CLIENT_REGION_ABSENT)) {
        refuse(connection, -ENOENT,
               "no absent region has that id, guest address, length and page size");
        return;
    }
    if (!map_region(arrival, index, &message->region, text)) {
        refuse(connection, -EINVAL, text);
        return;
    }
    arrival->import->regions.regions[index].removable =
        connection->regions.regions[index].removable;
    arrival->n_shards = import_plan_region(arrival->import, index, arrival->shards);
    if (arrival->n_shards == 0) {
        region_make_absent(&connection->regions.regions[index]);
        refuse(connection, -ENOSPC, "the VM has as many shards as it may have");
        return;
    }
    begin(arrival, CHANGE_ADD, index, serial);
    send_arm(arrival);
}

static void told_added(const Arrival *arrival)
{
    log_info("%s: region '%s' came", arrival->import->name,
             arrival->import->regions.regions[arrival->change.region].id);
}

void arrival_region_armed(Arrival *arrival, const ClientStatus *status, guint32 n_fds)
{
    Connection *connection = arrival->connection;
    guint32 index = arrival->change.region;
    Region *region = &connection->regions.regions[index];
    Shard *shards = NULL;
    int error = -EPROTO;

    if (connection->control->message->serial != arrival->arm_serial)
        return; /* to an ARM that was taken back */
    if (status->status == 0 && n_fds == arrival->n_shards)
        shards = arrival_take_shards(connection, arrival->shards, arrival->n_shards, 0);
    if (shards)
        error = hotplug_add(arrival->import, index, region, shards, arrival->n_shards);
    free(shards);
    if (!error) {
        told_added(arrival);
        answer(arrival, 0, "");
        return;
    }
    region_make_absent(region);
    if (status->status < 0)
        answer(arrival, status->status, status->text);
    else
        answer(arrival, error, shards ? strerror(-error) : ARRIVAL_NO_SHARDS);
}

/* --- one that goes ------------------------------------------------------------------------- */

static guint32 find_present(const RegionSet *set, const ClientRegion *wanted)
{
    guint32 i = 0;

    while (i < set->n && (set->regions[i].absent || set->regions[i].address != wanted->address ||
                          set->regions[i].length != wanted->length))
        i++;
    return i;
}

void arrival_remove_region(Connection *connection)
{
    const ClientMessage *message = connection->control->message;
    Arrival *arrival = connection->arrival;
    guint32 index = find_present(&connection->regions, &message->region);
    Change *change = &arrival->change;
    const char *reason = why_not_now(arrival);

    if (index < arrival->import->regions.n && change->kind == CHANGE_REMOVE &&
        change->region == index && !change->asked) {
        begin(arrival, CHANGE_REMOVE, index, message->serial); /* its client lost the connection */
    } else if (reason) {
        refuse(connection, -EBUSY, reason);
    } else if (index >= arrival->import->regions.n || index == connection->regions.n) {
        refuse(connection, -ENOENT, "no region of that length starts there");
    } else {
        begin(arrival, CHANGE_REMOVE, index, message->serial);
        if (atomic_load(&arrival->import->present[index]))
            hotplug_retire(arrival->import, index);
        else
            arrival_region_settled(arrival); /* it went while the client was away */
    }
}

void arrival_region_settled(Arrival *arrival)
{
    guint32 index = arrival->change.region;

    if (arrival->change.kind != CHANGE_REMOVE)
        return;
    hotplug_forget(arrival->import, index);
    log_info("%s: region '%s' went", arrival->import->name,
             arrival->import->regions.regions[index].id);
    /* A client that came back and did not ask again has not let go of it yet. */
    if (arrival->connection && arrival->change.asked)
        region_make_absent(&arrival->connection->regions.regions[index]);
    answer(arrival, 0, "");
}

/* --- a client that comes back -------------------------------------------------------------- */

/* The shards of one region among a HELLO's; how many, and the index of their first. */
static guint32 shards_in(const ClientHello *hello, guint32 region, guint32 *ret_first)
{
    guint32 n = 0;

    *ret_first = 0;
    for (guint32 i = 0; i < hello->n_shards; i++) {
        if (hello->shards[i].region != region || (n > 0 && *ret_first + n != i))
            continue;
        if (n++ == 0)
            *ret_first = i;
    }
    return n;
}

/* It had been armed when the connection went, and its answer was lost. */
static void take_late(Arrival *arrival, const ClientHello *hello, guint32 index)
{
    Connection *connection = arrival->connection;
    guint32 first, n = shards_in(hello, index, &first);
    Shard *shards;

    if (n == 0)
        return;
    shards = arrival_take_shards(connection, hello->shards + first, n, hello->table_fd + 1 + first);
    if (!shards ||
        hotplug_add(arrival->import, index, &connection->regions.regions[index], shards, n))
        import_halt(arrival->import, CLIENT_STATE_BROKEN,
                    "a region that came could not be taken over");
    free(shards);
}

void arrival_compare_regions(Arrival *arrival, const ClientHello *hello)
{
    const RegionSet *theirs = &arrival->connection->regions;
    Import *import = arrival->import;

    if (arrival->stage != ARRIVAL_READY && arrival->stage != ARRIVAL_RELEASING)
        return;
    for (guint32 i = 0; i < import->regions.n; i++) {
        gboolean present = atomic_load(&import->present[i]);

        if (arrival->change.kind != CHANGE_NONE)
            continue;
        if (!present && !theirs->regions[i].absent) {
            take_late(arrival, hello, i);
        } else if (present && theirs->regions[i].absent) {
            begin(arrival, CHANGE_REMOVE, i, 0);
            arrival->change.asked = FALSE;
            hotplug_retire(import, i);
        }
    }
}

void arrival_asker_gone(Arrival *arrival)
{
    arrival->change.asked = FALSE;
    if (arrival->change.kind == CHANGE_ADD)
        arrival->change.kind = CHANGE_NONE;
}

void arrival_end_change(Arrival *arrival)
{
    if (arrival->change.kind != CHANGE_NONE)
        answer(arrival, -ECANCELED, "the import ended meanwhile");
}
