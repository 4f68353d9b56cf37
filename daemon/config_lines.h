/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What GLib's key files say badly, or let pass: lines that are none, and keys that are set twice. */
#ifndef POSTCOPYD_CONFIG_LINES_H
#define POSTCOPYD_CONFIG_LINES_H

#include <glib.h>

/* FALSE with the number of the first line that is wrong, and why, in error. */
gboolean config_lines_check(const char *text, GError **error);

#endif
