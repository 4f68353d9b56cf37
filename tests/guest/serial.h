/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Records on the first serial port: a word and key=value pairs, one record a line.
 * A record is put together on the caller's stack and sent under one lock.
 */
#ifndef GUEST_SERIAL_H
#define GUEST_SERIAL_H

#include <stddef.h>
#include <stdint.h>

enum { RECORD_SIZE = 4096 };

/* What does not fit is cut off. */
typedef struct Record {
    size_t length;
    char text[RECORD_SIZE];
} Record;

void serial_init(void);

void record_begin(Record *record, const char *word);
void record_text(Record *record, const char *key, const char *value);
void record_number(Record *record, const char *key, uint64_t value);
void record_hex(Record *record, const char *key, uint64_t value);

/* For a value that is a list: record_text(…, key, ""), then its parts. */
void record_append(Record *record, const char *text);
void record_append_number(Record *record, uint64_t value);

/* Any processor. */
void record_send(Record *record);

#endif
