/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The daemon's figures as a page of text. */
#ifndef POSTCOPYD_CTL_STATS_H
#define POSTCOPYD_CTL_STATS_H

#include <json-glib/json-glib.h>

/* Everything in an answer to the request "stats"; the caller's. */
char *stats_render(JsonObject *answer, gboolean ascii);

#endif
