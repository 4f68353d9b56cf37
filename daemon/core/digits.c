/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/core/digits.h"

#include <string.h>

/* What the digit is worth; 16: it is none. */
static unsigned worth(char digit)
{
    if (digit >= '0' && digit <= '9')
        return (unsigned)(digit - '0');
    if (digit >= 'a' && digit <= 'f')
        return (unsigned)(digit - 'a') + 10;
    if (digit >= 'A' && digit <= 'F')
        return (unsigned)(digit - 'A') + 10;
    return 16;
}

bool digits_take(const char **text, unsigned base, const char *ends, uint64_t *ret_number)
{
    const char *at = *text;
    uint64_t number = 0;

    for (; worth(*at) < base; at++)
        if (__builtin_mul_overflow(number, base, &number) ||
            __builtin_add_overflow(number, worth(*at), &number))
            return false;
    if (at == *text || *at == '\0' || !strchr(ends, *at))
        return false;
    *text = at + 1;
    *ret_number = number;
    return true;
}

bool digits_take_bytes(const char **text, uint8_t *ret_bytes, size_t n)
{
    const char *at = *text;

    for (size_t i = 0; i < n; i++) {
        unsigned high = worth(*at), low = high < 16 ? worth(at[1]) : 16;

        if (low >= 16)
            return false;
        ret_bytes[i] = (uint8_t)(high << 4 | low);
        at += 2;
    }
    *text = at;
    return true;
}

bool digits_to_bytes(const char *text, uint8_t *ret_bytes, size_t n)
{
    return digits_take_bytes(&text, ret_bytes, n) && *text == '\0';
}
