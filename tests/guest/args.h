/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel command line: words of the form key=value; unknown words are ignored. */
#ifndef GUEST_ARGS_H
#define GUEST_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Args {
    uint64_t fill_mb;    /* memory to fill and verify */
    uint64_t zero_mb;    /* never written memory to verify as zero */
    uint64_t zero_epoch; /* the first epoch that looks at it */
    uint64_t workers;    /* processors at work, 1..MAX_CPUS */
    uint64_t write;      /* 1: rewrite an eighth of the pages visited */
    uint64_t seed;       /* of page contents and visiting order */
    uint64_t tsc_khz;    /* ticks of the time stamp counter in a millisecond */
    uint64_t marker;     /* I/O port whose value differs from host to host */
    bool linear;         /* visit pages in order of address, not at random */
} Args;

void args_parse(Args *ret_args, const char *command_line);

#endif
