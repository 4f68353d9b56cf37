/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/guest/args.h"

/* What follows key= at the start of a word, or NULL. */
static const char *find(const char *line, const char *key)
{
    bool word_starts = true;

    for (; *line; line++) {
        const char *at = line, *k = key;

        while (word_starts && *k && *at == *k)
            at++, k++;
        if (word_starts && !*k && *at == '=')
            return at + 1;
        word_starts = *line == ' ';
    }
    return NULL;
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return 16;
}

static uint64_t number(const char *line, const char *key, uint64_t otherwise)
{
    const char *text = find(line, key);
    int base = 10;
    uint64_t value = 0;

    if (!text || digit(*text) >= base)
        return otherwise;
    if (text[0] == '0' && text[1] == 'x') {
        base = 16;
        text += 2;
    }
    for (; digit(*text) < base; text++)
        value = value * (uint64_t)base + (uint64_t)digit(*text);
    return value;
}

void args_parse(Args *ret_args, const char *command_line)
{
    const char *order = find(command_line, "order");

    *ret_args = (Args){
        .fill_mb = number(command_line, "fill_mb", 64),
        .zero_mb = number(command_line, "zero_mb", 0),
        .zero_epoch = number(command_line, "zero_epoch", 0),
        .workers = number(command_line, "workers", 1),
        .write = number(command_line, "write", 1),
        .seed = number(command_line, "seed", 1),
        .tsc_khz = number(command_line, "tsc_khz", 1000000),
        .marker = number(command_line, "marker", 0x402),
        .linear = order && *order == 'l',
    };
}
