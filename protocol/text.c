/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "protocol/text.h"

#include <stdint.h>

/* Bytes of a character that begins so; 0 if none does.  0xc0 and 0xc1 would only begin overlong forms. */
static size_t announced(uint8_t first)
{
    if (first < 0x80)
        return 1;
    if (first >= 0xc2 && first <= 0xdf)
        return 2;
    if (first >= 0xe0 && first <= 0xef)
        return 3;
    return first >= 0xf0 && first <= 0xf4 ? 4 : 0;
}

/* The other overlong forms, the surrogates and what lies beyond U+10FFFF show in the second byte. */
static bool second_fits(uint8_t first, uint8_t second)
{
    uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;

    return second >= low && second <= high;
}

/* Bytes of the printable character at the beginning of the text; 0 if there is none. */
static size_t character(const char *text, size_t length)
{
    const uint8_t *bytes = (const uint8_t *)text;
    size_t n = length ? announced(bytes[0]) : 0;

    if (n == 0 || n > length)
        return 0;
    if (n == 1)
        return bytes[0] >= 0x20 && bytes[0] != 0x7f;
    if (!second_fits(bytes[0], bytes[1]))
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

bool text_is_plain(const char *text, size_t length)
{
    while (length > 0) {
        size_t n = character(text, length);

        if (n == 0)
            return false;
        text += n;
        length -= n;
    }
    return true;
}

size_t text_whole(const char *text, size_t length)
{
    for (size_t back = 1; back <= 3 && back <= length; back++) {
        uint8_t byte = (uint8_t)text[length - back];

        if ((byte & 0xc0) != 0x80)
            return announced(byte) > back ? length - back : length;
    }
    return length;
}

void text_mend(char *text, size_t length)
{
    while (length > 0) {
        size_t n = character(text, length);

        if (n == 0) {
            *text = '?';
            n = 1;
        }
        text += n;
        length -= n;
    }
}
