/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/guest/serial.h"

#include "tests/guest/machine.h"

#define COM1            0x3f8
#define COM1_INTERRUPTS (COM1 + 1)
#define COM1_FIFO       (COM1 + 2)
#define COM1_LINE       (COM1 + 3)
#define COM1_STATUS     (COM1 + 5)

#define FIFO_ON_AND_EMPTY 0x07
#define LINE_8N1          0x03
#define STATUS_SEND_EMPTY 0x20

enum { FIFO_BYTES = 16 };

static unsigned locked;

void serial_init(void)
{
    outb(COM1_INTERRUPTS, 0);
    outb(COM1_LINE, LINE_8N1);
    outb(COM1_FIFO, FIFO_ON_AND_EMPTY);
}

static void append(Record *record, char c)
{
    /* The last byte is kept for the end of line. */
    if (record->length < RECORD_SIZE - 1)
        record->text[record->length++] = c;
}

static void append_number(Record *record, uint64_t value, unsigned base)
{
    char digits[20];
    size_t n = 0;

    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    while (n)
        append(record, digits[--n]);
}

void record_append(Record *record, const char *text)
{
    while (*text)
        append(record, *text++);
}

void record_append_number(Record *record, uint64_t value)
{
    append_number(record, value, 10);
}

void record_begin(Record *record, const char *word)
{
    record->length = 0;
    record_append(record, word);
}

void record_text(Record *record, const char *key, const char *value)
{
    append(record, ' ');
    record_append(record, key);
    append(record, '=');
    record_append(record, value);
}

void record_number(Record *record, const char *key, uint64_t value)
{
    record_text(record, key, "");
    append_number(record, value, 10);
}

void record_hex(Record *record, const char *key, uint64_t value)
{
    record_text(record, key, "0x");
    append_number(record, value, 16);
}

/* The FIFO takes 16 bytes each time it is empty: two exits for them, not thirty-two. */
static void send(const char *bytes, size_t n)
{
    while (n) {
        size_t chunk = n < FIFO_BYTES ? n : FIFO_BYTES;

        while (!(inb(COM1_STATUS) & STATUS_SEND_EMPTY))
            pause();
        outsb(COM1, bytes, chunk);
        bytes += chunk;
        n -= chunk;
    }
}

void record_send(Record *record)
{
    record->text[record->length++] = '\n';
    while (__atomic_exchange_n(&locked, 1, __ATOMIC_ACQUIRE))
        pause();
    send(record->text, record->length);
    __atomic_store_n(&locked, 0, __ATOMIC_RELEASE);
}
