/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/qemu/process.h"
#include "protocol/text.h"

/* The command line's arguments one after another, each terminated, and an empty one at the end. */
static char *read_command_line(void)
{
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    size_t size = 65536, used = 0;
    char *text = fd < 0 ? NULL : malloc(size + 2);
    ssize_t got;

    while (text && (got = read(fd, text + used, size - used)) > 0) {
        used += (size_t)got;
        if (used == size) {
            char *more = realloc(text, 2 * size + 2);
            if (!more)
                break;
            text = more;
            size *= 2;
        }
    }
    if (fd >= 0)
        close(fd);
    if (text)
        text[used] = text[used + 1] = '\0';
    return text;
}

/* QEMU takes options with one dash or two. */
static bool is_option(const char *argument, const char *name)
{
    if (*argument++ != '-')
        return false;
    if (*argument == '-')
        argument++;
    return strcmp(argument, name) == 0;
}

/* "guest=X,…" or "X,…"; a comma in X is written twice. */
static void parse_name(const char *value, char *ret_name, size_t size)
{
    const char *guest = strncmp(value, "guest=", 6) == 0 ? value : strstr(value, ",guest=");
    size_t used = 0;

    if (guest)
        value = strchr(guest, '=') + 1;
    for (; *value && used < size - 1; value++) {
        if (*value == ',' && *++value != ',')
            break;
        ret_name[used++] = *value;
    }
    ret_name[text_whole(ret_name, used)] = '\0'; /* it may have been too long */
}

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *found = c ? strchr(digits, c | 0x20) : NULL;

    return found ? (int)(found - digits) : -1;
}

static void parse_uuid(const char *value, uint8_t *ret_uuid)
{
    uint8_t bytes[16];
    size_t n = 0;

    while (*value && n < sizeof bytes) {
        if (*value == '-') {
            value++;
            continue;
        }
        int high = hex_digit(value[0]);
        int low = high < 0 ? -1 : hex_digit(value[1]);
        if (low < 0)
            return;
        bytes[n++] = (uint8_t)(high << 4 | low);
        value += 2;
    }
    if (n == sizeof bytes && !*value)
        memcpy(ret_uuid, bytes, sizeof bytes);
}

static void parse_argument(const char *argument, const char *value, QemuOptions *options)
{
    if (is_option(argument, "incoming"))
        options->incoming = true;
    else if (is_option(argument, "name"))
        parse_name(value, options->name, sizeof options->name);
    else if (is_option(argument, "uuid"))
        parse_uuid(value, options->uuid);
    if (strstr(argument, "vhost-user"))
        options->vhost_user = true;
    /* Whatever gives memory back, or takes it away, while the guest runs. */
    if (strstr(argument, "balloon") || strstr(argument, "virtio-mem") || strstr(argument, "dimm"))
        options->gives_back = true;
}

bool process_options(QemuOptions *ret_options)
{
    const char *name = getenv("POSTCOPY_NAME");
    const char *uuid = getenv("POSTCOPY_UUID");
    char *text = read_command_line();

    memset(ret_options, 0, sizeof *ret_options);
    if (!text)
        return false;
    for (const char *at = text; *at; at += strlen(at) + 1)
        parse_argument(at, at + strlen(at) + 1, ret_options);
    free(text);
    if (name) {
        snprintf(ret_options->name, sizeof ret_options->name, "%s", name);
        ret_options->name[text_whole(ret_options->name, strlen(ret_options->name))] = '\0';
    }
    if (uuid) {
        memset(ret_options->uuid, 0, sizeof ret_options->uuid);
        parse_uuid(uuid, ret_options->uuid);
    }
    return true;
}
