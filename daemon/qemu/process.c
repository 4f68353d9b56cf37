/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/qemu/process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "daemon/core/digits.h"

/* Of a process with as many mappings as the kernel allows by default, and long paths. */
enum { MAPS_MAX = 32 << 20 };

enum { FLAGS = 4 }; /* characters: rwxp */

static int refuse(char *ret_text, int error, const char *format, ...) G_GNUC_PRINTF(3, 4);

static int refuse(char *ret_text, int error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_vsnprintf(ret_text, LIMIT_TEXT + 1, format, arguments);
    va_end(arguments);
    return error;
}

/* --- mappings ------------------------------------------------------------------------------ */

/* "7f0000000000-7f0000200000 rw-s 00000000 00:01 1027   /memfd:ram (deleted)" */
static gboolean parse_line(const char *line, Mapping *ret_mapping)
{
    guint64 major, minor;
    const char *flags;

    if (!digits_take(&line, 16, "-", &ret_mapping->start) ||
        !digits_take(&line, 16, " ", &ret_mapping->end) || ret_mapping->start >= ret_mapping->end)
        return FALSE;
    flags = line;
    if (strspn(flags, "-rwxsp") != FLAGS || flags[FLAGS] != ' ')
        return FALSE;
    line += FLAGS + 1;
    if (!digits_take(&line, 16, " ", &ret_mapping->offset) ||
        !digits_take(&line, 16, ":", &major) || !digits_take(&line, 16, " ", &minor) ||
        !digits_take(&line, 10, " \n", &ret_mapping->inode) || major > G_MAXUINT32 ||
        minor > G_MAXUINT32)
        return FALSE;
    ret_mapping->device = major << 32 | minor;
    ret_mapping->readable = flags[0] == 'r';
    ret_mapping->shared = flags[3] == 's';
    return TRUE;
}

GArray *mappings_parse(const char *text)
{
    g_autoptr(GArray) mappings = g_array_new(FALSE, FALSE, sizeof(Mapping));
    guint64 last = 0;

    while (*text) {
        const char *end = strchr(text, '\n');
        Mapping mapping;

        if (!end || !parse_line(text, &mapping) || mapping.start < last)
            return NULL;
        last = mapping.end;
        g_array_append_val(mappings, mapping);
        text = end + 1;
    }
    return g_steal_pointer(&mappings);
}

/* The file's content as far as MAPS_MAX, or NULL with errno. */
static GString *read_maps(int pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/maps", pid);
    GString *text = g_string_new(NULL);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char part[65536];
    ssize_t n = fd < 0 ? -1 : 1;
    int error = fd < 0 ? errno : 0;

    while (fd >= 0 && n > 0 && text->len < MAPS_MAX) {
        n = read(fd, part, sizeof part);
        if (n < 0 && errno == EINTR)
            n = 1;
        else if (n > 0)
            g_string_append_len(text, part, n);
        else if (n < 0)
            error = errno;
    }
    if (fd >= 0)
        close(fd);
    if (n == 0)
        return text;
    g_string_free(text, TRUE);
    errno = n > 0 ? E2BIG : error;
    return NULL;
}

GArray *mappings_of_process(int pid, char *ret_text)
{
    GString *text = read_maps(pid);
    GArray *mappings;

    if (!text) {
        refuse(ret_text, 0, "cannot read the memory map of process %d: %s", pid, g_strerror(errno));
        return NULL;
    }
    mappings = mappings_parse(text->str);
    g_string_free(text, TRUE);
    if (!mappings || mappings->len == 0) {
        g_clear_pointer(&mappings, g_array_unref);
        refuse(ret_text, 0, "process %d has no memory, or its map is malformed", pid);
    }
    return mappings;
}

/* The mapping of this address, or NULL. */
static const Mapping *find(const GArray *mappings, guint64 address)
{
    guint low = 0, high = mappings->len;

    while (low < high) {
        guint middle = low + (high - low) / 2;
        const Mapping *mapping = &g_array_index(mappings, Mapping, middle);

        if (address < mapping->start)
            high = middle;
        else if (address >= mapping->end)
            low = middle + 1;
        else
            return mapping;
    }
    return NULL;
}

static ClientRegionKind kind_of(const Mapping *mapping)
{
    if (mapping->shared)
        return CLIENT_REGION_SHARED;
    return mapping->inode ? CLIENT_REGION_PRIVATE : CLIENT_REGION_ANONYMOUS;
}

/* Whether the stretch may go on with a mapping that starts so many bytes behind its begin. */
static gboolean goes_on(const Stretch *stretch, const Mapping *mapping, guint64 behind)
{
    if (!mapping->shared || stretch->kind != CLIENT_REGION_SHARED)
        return !mapping->shared && stretch->kind != CLIENT_REGION_SHARED;
    return mapping->device == stretch->first->device && mapping->inode == stretch->first->inode &&
           mapping->offset == stretch->offset + behind;
}

int mappings_classify(const GArray *mappings, guint64 address, guint64 length, Stretch *ret_stretch,
                      char *ret_text)
{
    const Mapping *mapping = find(mappings, address);
    guint64 end = address + length;

    *ret_stretch = (Stretch){.first = mapping};
    if (mapping) {
        ret_stretch->kind = kind_of(mapping);
        ret_stretch->offset = mapping->offset + (address - mapping->start);
    }
    for (guint64 at = address; at < end; at = mapping->end, mapping = find(mappings, at)) {
        if (!mapping || !mapping->readable)
            return refuse(ret_text, -EINVAL,
                          "nothing that can be read is mapped at 0x%" PRIx64 " of its process", at);
        if (at != address && !goes_on(ret_stretch, mapping, at - address))
            return refuse(ret_text, -EINVAL,
                          "it is shared memory that no single file holds, from 0x%" PRIx64 " on",
                          at);
        /* Where a private file mapping was never written the process has no page, but content. */
        if (kind_of(mapping) == CLIENT_REGION_PRIVATE)
            ret_stretch->kind = CLIENT_REGION_PRIVATE;
    }
    return 0;
}

/* --- regions ------------------------------------------------------------------------------- */

/* Rule 13: first only its name, as opening a device does things; a file on somebody's file server may
 * wait for ever. */
static int open_memory_file(int path_fd, char *ret_text)
{
    struct statfs system;
    struct stat status;
    char path[64];
    int fd;

    if (fstat(path_fd, &status) || !S_ISREG(status.st_mode) || fstatfs(path_fd, &system) ||
        ((guint64)system.f_type != TMPFS_MAGIC && (guint64)system.f_type != HUGETLBFS_MAGIC))
        return refuse(ret_text, -EINVAL, "it is a shared mapping of something that is no memory");
    g_snprintf(path, sizeof path, "/proc/self/fd/%d", path_fd);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return refuse(ret_text, -errno, "cannot open its file: %s", g_strerror(errno));
    if (region_file_is_memory(fd))
        return fd;
    close(fd);
    return refuse(ret_text, -EINVAL, "it is a shared mapping of something that is no memory");
}

/* The file behind a shared mapping, read only, or negative errno with a reason. */
static int open_mapped_file(int pid, const Mapping *mapping, char *ret_text)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/map_files/%" PRIx64 "-%" PRIx64, pid,
                                            mapping->start, mapping->end);
    int path_fd = open(path, O_PATH | O_CLOEXEC);
    int fd;

    if (path_fd < 0)
        return refuse(ret_text, -errno,
                      "cannot open the file it is mapped from: %s; the daemon must run as root",
                      g_strerror(errno));
    fd = open_memory_file(path_fd, ret_text);
    close(path_fd);
    return fd;
}

/* Between the look at the map and the opening the process may have changed it. */
static int check_file(int fd, const Mapping *mapping, const RamBlock *block, guint64 offset,
                      char *ret_text)
{
    struct statfs system;
    struct stat status;

    if (fstat(fd, &status) || fstatfs(fd, &system))
        return refuse(ret_text, -errno, "cannot look at its file: %s", g_strerror(errno));
    if (status.st_ino != mapping->inode || (guint64)status.st_size < offset ||
        (guint64)status.st_size - offset < block->length)
        return refuse(ret_text, -EINVAL, "its file is another one by now, or too short");
    if ((guint64)system.f_type == HUGETLBFS_MAGIC && (guint64)system.f_bsize != block->page_size)
        return refuse(ret_text, -EINVAL,
                      "its file has pages of %" G_GINT64_FORMAT " bytes, QEMU says %" PRIu64,
                      (gint64)system.f_bsize, block->page_size);
    return 0;
}

static int check_block(const RamBlock *block, char *ret_text)
{
    if (strlen(block->id) > LIMIT_REGION_ID || block->id[0] == '\0')
        return refuse(ret_text, -EINVAL, "its id is empty or too long");
    if (!limits_region_fits(block->length, block->page_size) || block->address == 0 ||
        block->address % block->page_size != 0 || block->address + block->length < block->address)
        return refuse(ret_text, -EINVAL, "its size or address is not that of memory");
    if (block->page_size > PEER_PAGE_SIZE_MAX)
        return refuse(ret_text, -EINVAL,
                      "it has pages of %" PRIu64 " bytes: pages larger than 2 MiB do not travel",
                      block->page_size);
    return 0;
}

static int make_region(int pid, const GArray *mappings, const RamBlock *block, Region *ret_region,
                       char *ret_text)
{
    Stretch stretch;
    int fd = -1, error = check_block(block, ret_text);

    if (!error)
        error = mappings_classify(mappings, block->address, block->length, &stretch, ret_text);
    if (error)
        return error;
    if (stretch.kind == CLIENT_REGION_SHARED) {
        fd = open_mapped_file(pid, stretch.first, ret_text);
        if (fd < 0)
            return fd;
        error = check_file(fd, stretch.first, block, stretch.offset, ret_text);
        if (error) {
            close(fd);
            return error;
        }
    }
    *ret_region = (Region){.guest_address = block->guest_address,
                           .address = block->address,
                           .length = block->length,
                           .page_size = block->page_size,
                           .fd_offset = fd >= 0 ? stretch.offset : 0,
                           .kind = stretch.kind,
                           .page_shift = (unsigned)__builtin_ctzll(block->page_size),
                           .fd = fd};
    g_strlcpy(ret_region->id, block->id, sizeof ret_region->id);
    return 0;
}

int process_regions(int pid, const GPtrArray *blocks, RegionSet *ret_regions, char *ret_text)
{
    g_autoptr(GArray) mappings = mappings_of_process(pid, ret_text);
    int error = mappings ? 0 : -ESRCH;

    ret_regions->n = 0;
    if (mappings && (blocks->len == 0 || blocks->len > LIMIT_REGIONS))
        error = refuse(ret_text, -EINVAL, "its monitor tells of %u blocks of RAM", blocks->len);
    for (guint i = 0; !error && i < blocks->len; i++) {
        const RamBlock *block = g_ptr_array_index(blocks, i);
        char text[LIMIT_TEXT + 1];

        error = make_region(pid, mappings, block, &ret_regions->regions[i], text);
        if (error)
            refuse(ret_text, error, "RAM '%.100s': %.800s", block->id, text);
        else
            ret_regions->n = i + 1;
    }
    if (!error && region_set_overlaps(ret_regions))
        error = refuse(ret_text, -EINVAL, "blocks of its RAM overlap in its process");
    if (error)
        region_set_deinit(ret_regions);
    return error;
}
