/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Numbers and bytes in texts whose form is fixed: what the kernel writes in /proc, and tokens.  The C
 * library's own functions take signs, white space and numbers too large without a word; these do not.
 * No allocation; any thread.
 */
#ifndef POSTCOPYD_CORE_DIGITS_H
#define POSTCOPYD_CORE_DIGITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A number of this base (10 or 16) that ends with one of these characters; *text moves behind that one.
 * False, and *text and *ret_number stay, if there is no digit, another character, or more than 64 bits.
 */
bool digits_take(const char **text, unsigned base, const char *ends, uint64_t *ret_number);

/* So many bytes, two hexadecimal digits each; *text moves behind the last.  False if there are fewer. */
bool digits_take_bytes(const char **text, uint8_t *ret_bytes, size_t n);

/* The whole text is so many bytes, two hexadecimal digits each, and nothing else. */
bool digits_to_bytes(const char *text, uint8_t *ret_bytes, size_t n);

#endif
