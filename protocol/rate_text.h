/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rates as people write them: in the configuration and at postcopyctl. */
#ifndef POSTCOPYD_PROTOCOL_RATE_TEXT_H
#define POSTCOPYD_PROTOCOL_RATE_TEXT_H

#include <stdint.h>

#define RATE_LEAST (UINT64_C(64) << 10)
#define RATE_MOST  (UINT64_C(1) << 40)

/* What a rate may look like, for messages. */
#define RATE_TEXT "bytes a second, 64K to 1T, as 20M, or bits as 1Gbit, or none"

/*
 * "20M": bytes a second, with K, M, G or T (powers of 1024), also "20MB" and "20MiB".
 * "1Gbit", "2.5Gbit": bits a second, with kbit, Mbit, Gbit (powers of 1000).  "none" is 0.
 * 0, or -EINVAL, or -ERANGE outside of RATE_LEAST to RATE_MOST.
 */
int rate_from_text(const char *text, uint64_t *ret_bytes_per_s);

#endif
