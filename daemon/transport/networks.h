/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lists of networks as people write them: "10.1.0.0/16, fd00:1::/64, 192.0.2.7", and the same with a word
 * for each: "10.1.0.0/16=rdma, 10.1.2.0/24=tcp".  Immutable once parsed, so any thread may look into one.
 */
#ifndef POSTCOPYD_TRANSPORT_NETWORKS_H
#define POSTCOPYD_TRANSPORT_NETWORKS_H

#include <stdbool.h>

#include "protocol/limits.h"

typedef struct Networks Networks;

enum { NETWORK_TEXT = 63 }; /* one as text, without the NUL */

/*
 * IPv4 and IPv6 networks, and lone addresses, separated by commas.  NULL or nothing but blanks is the empty
 * list, which no host is in.  The caller frees it.  NULL with one line in ret_text[LIMIT_TEXT + 1]: what
 * is wrong with which entry, or that there is no memory.
 */
Networks *networks_parse(const char *text, char *ret_text);

/* Each entry is NETWORK=WORD, with one of these words. */
Networks *networks_parse_words(const char *text, const char *const *words, unsigned n_words,
                               char *ret_text);

/* NULL is fine. */
void networks_free(Networks *networks);

/*
 * Whether host, a numeric address as getnameinfo(3) writes it, is in one of them.  A zone ("%eth0") does not
 * matter; an IPv4 address matches its network also when it is written as ::ffff:1.2.3.4, and no other IPv6
 * network.  False for names, and for NULL in place of the list.
 */
bool networks_match(const Networks *networks, const char *host);

/* The index of the word of the smallest network that host is in; fallback: it is in none. */
unsigned networks_word(const Networks *networks, const char *host, unsigned fallback);

/*
 * Finds the first entry of list with this word of whose addresses none is in others, and writes it to
 * ret_text[NETWORK_TEXT + 1].  False if there is none; NULL is an empty list.
 */
bool networks_find_outside(const Networks *list, unsigned word, const Networks *others,
                           char *ret_text);

/* True if there is no entry, or NULL. */
bool networks_is_empty(const Networks *networks);

/* True if some entry is, or holds, loopback addresses only. */
bool networks_name_loopback(const Networks *networks);

/* True if there are entries, and all of them are so. */
bool networks_are_loopback(const Networks *networks);

#endif
