/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "protocol/rate_text.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

/* Digits, at most one point among them; in thousandths. Where they end, NULL if there are none. */
static const char *parse_thousandths(const char *text, uint64_t *ret_value)
{
    uint64_t value = 0, place = 1000;
    bool point = false, digit = false;

    for (; (*text >= '0' && *text <= '9') || (*text == '.' && !point); text++) {
        if (*text == '.') {
            point = true;
            continue;
        }
        digit = true;
        if (value > RATE_MOST * 1000)
            continue; /* too much already */
        if (!point)
            value = value * 10 + (uint64_t)(*text - '0') * 1000;
        else if (place > 1)
            value += (uint64_t)(*text - '0') * (place /= 10);
    }
    *ret_value = value;
    return digit ? text : NULL;
}

/* How many bytes a second one of this unit is, in eighths; 0: no such unit. */
static uint64_t unit_eighths(const char *unit)
{
    static const char letters[] = "KMGT";
    uint64_t binary = 8, decimal = 1;
    const char *letter;

    if (strcmp(unit, "") == 0 || strcmp(unit, "B") == 0)
        return binary;
    letter = strchr(letters, *unit == 'k' ? 'K' : *unit);
    if (!letter)
        return strcasecmp(unit, "bit") == 0 ? decimal : 0;
    for (ptrdiff_t i = 0; i <= letter - letters; i++) {
        binary *= 1024;
        decimal *= 1000;
    }
    unit++;
    if (strcmp(unit, "") == 0 || strcmp(unit, "B") == 0 || strcmp(unit, "iB") == 0)
        return binary;
    return strcmp(unit, "bit") == 0 ? decimal : 0;
}

int rate_from_text(const char *text, uint64_t *ret_bytes_per_s)
{
    uint64_t thousandths, unit;
    unsigned __int128 bytes;
    const char *rest;

    if (strcmp(text, "none") == 0) {
        *ret_bytes_per_s = 0;
        return 0;
    }
    rest = parse_thousandths(text, &thousandths);
    unit = rest ? unit_eighths(rest) : 0;
    if (unit == 0)
        return -EINVAL;
    bytes = (unsigned __int128)thousandths * unit / 8000;
    if (bytes < RATE_LEAST || bytes > RATE_MOST)
        return -ERANGE;
    *ret_bytes_per_s = (uint64_t)bytes;
    return 0;
}
