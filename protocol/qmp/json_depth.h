/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The JSON parser recurses, so how deep others may nest what it is given has to fit a thread's stack.
 * No state; any thread.
 */
#ifndef POSTCOPYD_QMP_JSON_DEPTH_H
#define POSTCOPYD_QMP_JSON_DEPTH_H

#include <glib.h>

enum { JSON_DEPTH_MAX = 64 };

/*
 * True if these bytes may be parsed: arrays and objects lie at most JSON_DEPTH_MAX deep in each other.
 * False as well for comments and strings in single quotes, which the parser takes, though they are no
 * JSON, and in which brackets could hide.
 */
gboolean json_depth_is_bounded(const char *text, gsize length);

#endif
