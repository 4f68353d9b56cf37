/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "protocol/wire.h"

#include <string.h>

#include "protocol/text.h"

static void write_little_endian(WireWriter *w, uint64_t value, size_t width)
{
    uint8_t bytes[8];

    for (size_t i = 0; i < width; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    wire_write_bytes(w, bytes, width);
}

void wire_write_u8(WireWriter *w, uint8_t value)
{
    write_little_endian(w, value, 1);
}

void wire_write_u16(WireWriter *w, uint16_t value)
{
    write_little_endian(w, value, 2);
}

void wire_write_u32(WireWriter *w, uint32_t value)
{
    write_little_endian(w, value, 4);
}

void wire_write_u64(WireWriter *w, uint64_t value)
{
    write_little_endian(w, value, 8);
}

void wire_write_bytes(WireWriter *w, const void *bytes, size_t length)
{
    if (w->failed || length > w->size - w->used) {
        w->failed = true;
        return;
    }
    if (length)
        memcpy(w->data + w->used, bytes, length);
    w->used += length;
}

void wire_write_string(WireWriter *w, const char *string, size_t limit)
{
    size_t length = string ? strlen(string) : 0;

    if (length > limit) {
        w->failed = true;
        return;
    }
    wire_write_u16(w, (uint16_t)length);
    wire_write_bytes(w, string, length);
}

void wire_write_text(WireWriter *w, const char *text, size_t limit)
{
    size_t length = text ? text_whole(text, strnlen(text, limit)) : 0;

    wire_write_u16(w, (uint16_t)length);
    wire_write_bytes(w, text, length);
    if (!w->failed)
        text_mend((char *)w->data + w->used - length, length);
}

void wire_read_bytes(WireReader *r, void *ret_bytes, size_t length)
{
    if (r->failed || length > r->left) {
        r->failed = true;
        memset(ret_bytes, 0, length);
        return;
    }
    if (length)
        memcpy(ret_bytes, r->data, length);
    r->data += length;
    r->left -= length;
}

static uint64_t read_little_endian(WireReader *r, size_t width)
{
    uint8_t bytes[8] = {0};
    uint64_t value = 0;

    wire_read_bytes(r, bytes, width);
    for (size_t i = 0; i < width; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

uint8_t wire_read_u8(WireReader *r)
{
    return (uint8_t)read_little_endian(r, 1);
}

uint16_t wire_read_u16(WireReader *r)
{
    return (uint16_t)read_little_endian(r, 2);
}

uint32_t wire_read_u32(WireReader *r)
{
    return (uint32_t)read_little_endian(r, 4);
}

uint64_t wire_read_u64(WireReader *r)
{
    return read_little_endian(r, 8);
}

uint32_t wire_read_count(WireReader *r, uint32_t limit)
{
    uint32_t count = wire_read_u32(r);

    if (count <= limit)
        return count;
    r->failed = true;
    return 0;
}

void wire_read_string(WireReader *r, char *ret_string, size_t limit)
{
    size_t length = wire_read_u16(r);

    /* All of it: what stood behind the terminator before would travel with copies of the struct. */
    memset(ret_string, 0, limit + 1);
    if (length > limit) {
        r->failed = true;
        return;
    }
    wire_read_bytes(r, ret_string, length);
    if (!text_is_plain(ret_string, length))
        r->failed = true;
    if (r->failed)
        ret_string[0] = '\0';
}

bool wire_read_complete(const WireReader *r)
{
    return !r->failed && r->left == 0;
}
