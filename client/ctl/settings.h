/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A QEMU's migration capabilities and parameters: set for this migration, and put back afterwards.
 * They outlive a migration, and one of them (x-ignore-shared) would lose the guest's memory in a
 * later save or migration by other means, so whatever was changed here is undone, always.
 */
#ifndef POSTCOPYD_CTL_SETTINGS_H
#define POSTCOPYD_CTL_SETTINGS_H

#include "protocol/qmp/qmp.h"

typedef struct Settings {
    JsonArray *capabilities; /* as they were, only those that were changed */
    JsonObject *parameters;
} Settings;

/* Changes what direct mode needs changed; what was there is remembered before anything is. */
gboolean settings_apply(Settings *settings, Qmp *qmp, gboolean is_source, GError **error);

/* Puts everything back; may be called again, and without settings_apply(). */
gboolean settings_restore(Settings *settings, Qmp *qmp, GError **error);

void settings_deinit(Settings *settings);

#endif
