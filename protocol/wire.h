/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bounded little-endian reading and writing, below both wire formats.
 *
 * A reader or writer that ran over its end, or met a value out of bounds, is failed: every later
 * call on it does nothing and reads as zero, so a codec checks once, at its end.  No allocation.
 */
#ifndef POSTCOPYD_PROTOCOL_WIRE_H
#define POSTCOPYD_PROTOCOL_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct WireWriter {
    uint8_t *data;
    size_t size;
    size_t used;
    bool failed;
} WireWriter;

typedef struct WireReader {
    const uint8_t *data;
    size_t left;
    bool failed;
} WireReader;

void wire_write_u8(WireWriter *w, uint8_t value);
void wire_write_u16(WireWriter *w, uint16_t value);
void wire_write_u32(WireWriter *w, uint32_t value);
void wire_write_u64(WireWriter *w, uint64_t value);
void wire_write_bytes(WireWriter *w, const void *bytes, size_t length);

/* A string of at most limit bytes, as u16 length and bytes without a terminator. */
void wire_write_string(WireWriter *w, const char *string, size_t limit);

/*
 * The same for a text meant for people, which may have been cut anywhere or come in another encoding:
 * it is cut to whole characters of at most limit bytes, and '?' stands for what a reader would refuse.
 */
void wire_write_text(WireWriter *w, const char *text, size_t limit);

uint8_t wire_read_u8(WireReader *r);
uint16_t wire_read_u16(WireReader *r);
uint32_t wire_read_u32(WireReader *r);
uint64_t wire_read_u64(WireReader *r);
void wire_read_bytes(WireReader *r, void *ret_bytes, size_t length);

/* A count of at most limit; 0 and failed beyond. */
uint32_t wire_read_count(WireReader *r, uint32_t limit);

/*
 * A string into ret_string[limit + 1], zeroes behind it.  Control characters (they would reach logs and
 * terminals), embedded zeroes and what is not UTF-8 (JSON could not hold it) fail the reader.
 */
void wire_read_string(WireReader *r, char *ret_string, size_t limit);

/* True if all was read, nothing is left over and nothing was out of bounds. */
bool wire_read_complete(const WireReader *r);

#endif
