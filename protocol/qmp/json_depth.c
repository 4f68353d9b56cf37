/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "protocol/qmp/json_depth.h"

/* Where the string ends that begins at this quote: at its closing quote, or at the end of the text. */
static gsize skip_string(const char *text, gsize length, gsize at)
{
    for (at++; at < length && text[at] != '"'; at++)
        at += text[at] == '\\';
    return at;
}

gboolean json_depth_is_bounded(const char *text, gsize length)
{
    int depth = 0;

    for (gsize at = 0; at < length; at++)
        switch (text[at]) {
        case '"':
            at = skip_string(text, length, at);
            break;
        case '[':
        case '{':
            if (++depth > JSON_DEPTH_MAX)
                return FALSE;
            break;
        case ']':
        case '}':
            if (--depth < 0)
                return FALSE;
            break;
        case '\'':
        case '/':
            return FALSE;
        }
    return TRUE;
}
