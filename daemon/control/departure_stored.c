/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/departure_stored.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/control/departure_keep.h"
#include "daemon/control/departure_steps.h"
#include "daemon/core/process.h"

enum {
    STORED_VERSION = 1,
    STORED_MAX = 64 * 1024,
    SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE,
};

#define STORED_MAGIC UINT32_C(0x53584350) /* "PCXS" */

static guint64 checksum(const guint8 *bytes, gsize n)
{
    guint64 hash = UINT64_C(0xcbf29ce484222325);

    for (gsize i = 0; i < n; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* --- to files ------------------------------------------------------------------------------ */

/* Several regions may lie in one file.  The service manager keeps one of several fds that are the same, so
 * each file is stored once. */
static guint file_of(StoredFiles *files, int fd)
{
    struct stat wanted, other;

    if (fstat(fd, &wanted))
        return 0;
    for (guint i = 1; i < files->n; i++)
        if (fstat(files->fds[i], &other) == 0 && other.st_dev == wanted.st_dev &&
            other.st_ino == wanted.st_ino)
            return i;
    files->fds[files->n] = fd;
    return files->n++;
}

static gboolean pack_regions(const RegionSet *regions, StoredFiles *files, WireWriter *w)
{
    wire_write_u32(w, regions->n);
    for (guint32 i = 0; i < regions->n; i++) {
        const Region *region = &regions->regions[i];
        guint file;

        if (region->kind != CLIENT_REGION_SHARED || region->fd < 0)
            return FALSE;
        file = file_of(files, region->fd);
        if (file == 0)
            return FALSE;
        wire_write_u64(w, region->length);
        wire_write_u64(w, region->page_size);
        wire_write_u64(w, region->fd_offset);
        wire_write_u32(w, file);
    }
    return TRUE;
}

/* Its start makes sure that it is this process, and no later one with its id.  0: it has ended. */
static guint64 start_of(const Departure *departure)
{
    guint64 start = process_start(departure->pid);

    return process_has_ended(departure->pidfd) ? 0 : start;
}

static gboolean pack(const Departure *departure, StoredFiles *files, WireWriter *w)
{
    const Export *export = departure->export;

    wire_write_u32(w, STORED_MAGIC);
    wire_write_u32(w, STORED_VERSION);
    wire_write_bytes(w, export->uuid, sizeof export->uuid);
    wire_write_string(w, export->name, LIMIT_NAME);
    wire_write_u32(w, (guint32)departure->pid);
    wire_write_u64(w, start_of(departure));
    wire_write_u8(w, departure->lent != FALSE);
    wire_write_u8(w, departure->mode == DEPARTURE_ASSIST);
    wire_write_u8(w, export->asked_for);
    if (!pack_regions(&export->memory.regions, files, w))
        return FALSE;
    wire_write_u32(w, files->n);
    departure_pack(departure, departure->seal, w);
    if (!w->failed)
        wire_write_u64(w, checksum(w->data, w->used));
    return !w->failed;
}

static int memfd_of(const WireWriter *w)
{
    int fd = memfd_create("postcopyd-export", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd >= 0 && write(fd, w->data, w->used) == (ssize_t)w->used &&
        fcntl(fd, F_ADD_SEALS, SEALS) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

gboolean departure_to_files(const Departure *departure, StoredFiles *ret_files)
{
    g_autofree guint8 *bytes = g_malloc(STORED_MAX);
    WireWriter w = {.data = bytes, .size = STORED_MAX};

    ret_files->n = 1;
    ret_files->fds[0] = pack(departure, ret_files, &w) ? memfd_of(&w) : -1;
    return ret_files->fds[0] >= 0;
}

/* --- and back ------------------------------------------------------------------------------ */

static gsize read_blob(int fd, guint8 *ret_bytes)
{
    struct stat status;
    ssize_t n;

    if (fcntl(fd, F_GET_SEALS) != SEALS || fstat(fd, &status) || status.st_size > STORED_MAX)
        return 0;
    n = pread(fd, ret_bytes, STORED_MAX, 0);
    return n == status.st_size ? (gsize)n : 0;
}

/* Only what is still as large as it was, and a file in memory, is this VM's. */
static gboolean is_its_file(const Region *region)
{
    struct stat status;

    return region_file_is_memory(region->fd) && fstat(region->fd, &status) == 0 &&
           (guint64)status.st_size >= region->length &&
           (guint64)status.st_size - region->length >= region->fd_offset;
}

static gboolean unpack_regions(WireReader *r, const StoredFiles *files, RegionSet *regions)
{
    gboolean used[LIMIT_REGIONS + 1] = {TRUE};
    gboolean fit = TRUE;

    regions->n = wire_read_count(r, LIMIT_REGIONS);
    for (guint32 i = 0; i < regions->n && fit; i++) {
        Region *region = &regions->regions[i];
        guint32 file;

        region->kind = CLIENT_REGION_SHARED;
        region->length = wire_read_u64(r);
        region->page_size = wire_read_u64(r);
        region->fd_offset = wire_read_u64(r);
        file = wire_read_u32(r);
        fit = !r->failed && limits_region_fits(region->length, region->page_size) && file > 0 &&
              file < files->n;
        if (!fit)
            break;
        region->page_shift = (unsigned)__builtin_ctzll(region->page_size);
        region->fd = files->fds[file];
        used[file] = TRUE;
        fit = is_its_file(region);
    }
    for (guint i = 0; i < files->n; i++)
        fit = fit && used[i];
    return fit && regions->n > 0 && wire_read_u32(r) == files->n;
}

/* Readable, as a pidfd is whose process has ended. */
static int pidfd_of_nobody(void)
{
    return eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
}

static int open_process(int pid, guint64 start)
{
    int pidfd = start ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

    if (pidfd >= 0 && process_start(pid) == start)
        return pidfd;
    if (pidfd >= 0)
        close(pidfd);
    return pidfd_of_nobody();
}

typedef struct Head {
    guint8 uuid[LIMIT_UUID];
    char name[LIMIT_NAME + 1];
    guint64 start;
    gboolean asked_for;
    Kept kept;
} Head;

static gboolean unpack(WireReader *r, const StoredFiles *files, Departure *departure,
                       RegionSet *regions, Head *head)
{
    guint32 magic = wire_read_u32(r), version = wire_read_u32(r);

    wire_read_bytes(r, head->uuid, sizeof head->uuid);
    wire_read_string(r, head->name, LIMIT_NAME);
    departure->pid = (int)wire_read_u32(r);
    head->start = wire_read_u64(r);
    departure->lent = wire_read_u8(r) != 0;
    departure->mode = wire_read_u8(r) ? DEPARTURE_ASSIST : DEPARTURE_DIRECT;
    head->asked_for = wire_read_u8(r) != 0;
    return magic == STORED_MAGIC && version == STORED_VERSION && departure->pid > 0 &&
           unpack_regions(r, files, regions) &&
           departure_unpack_kept(r, departure, regions, &head->kept) && !head->kept.fenced &&
           wire_read_complete(r);
}

static Departure *fail(Departure *departure, char *ret_text, const char *why)
{
    g_strlcpy(ret_text, why, LIMIT_TEXT + 1);
    if (departure->pidfd >= 0)
        close(departure->pidfd);
    g_free(departure->vcpus);
    g_free(departure);
    return NULL;
}

static gboolean check_sum(const guint8 *bytes, gsize *size)
{
    WireReader r = {.left = sizeof(guint64)};

    if (*size <= sizeof(guint64))
        return FALSE;
    *size -= sizeof(guint64);
    r.data = bytes + *size;
    return wire_read_u64(&r) == checksum(bytes, *size);
}

Departure *departure_from_files(Control *control, const StoredFiles *files, char *ret_text)
{
    g_autofree guint8 *bytes = g_malloc(STORED_MAX);
    g_autofree RegionSet *regions = g_new0(RegionSet, 1);
    g_autofree Head *head = g_new0(Head, 1);
    Departure *departure = g_new0(Departure, 1);
    gsize size = read_blob(files->fds[0], bytes);
    WireReader r = {.data = bytes};
    int error;

    departure->pidfd = departure->withdraw_fd = -1;
    if (!check_sum(bytes, &size))
        return fail(departure, ret_text, "the description of the export is damaged");
    r.left = size;
    if (!unpack(&r, files, departure, regions, head))
        return fail(departure, ret_text, "the description does not fit the files of its memory");
    departure->pidfd = open_process(departure->pid, head->start);
    if (departure->pidfd < 0)
        return fail(departure, ret_text, "no file descriptor is free");
    departure->export =
        export_restore(head->uuid, head->name, departure->pid, regions, head->kept.token,
                       head->kept.seal, departure_notify, control, &error);
    if (!departure->export)
        return fail(departure, ret_text, strerror(-error));
    departure->export->asked_for = head->asked_for;
    departure->control = control;
    departure->id = control->next_id++;
    departure->seal = head->kept.seal;
    departure->leased = TRUE;
    departure->stage = DEPARTURE_SEALED;
    g_ptr_array_add(control->departures, departure);
    return departure;
}
