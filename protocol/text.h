/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a string of either protocol may hold: UTF-8 without control characters.  Whoever shows one as
 * JSON or on a terminal relies on it.  No allocation; any thread.
 */
#ifndef POSTCOPYD_PROTOCOL_TEXT_H
#define POSTCOPYD_PROTOCOL_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/*
 * True if these bytes are UTF-8 (no overlong form, no surrogate, nothing beyond U+10FFFF, no half
 * character), and none is a control character: below 0x20, zero included, or 0x7f.
 */
bool text_is_plain(const char *text, size_t length);

/* The bytes of the text, at most length, that remain if a half character at its end is left out. */
size_t text_whole(const char *text, size_t length);

/* Puts '?' in the place of each byte for which text_is_plain() would refuse the text. */
void text_mend(char *text, size_t length);

#endif
