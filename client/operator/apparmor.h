/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whether AppArmor lets QEMUs that libvirt starts have our library and sockets. */
#ifndef POSTCOPYD_OPERATOR_APPARMOR_H
#define POSTCOPYD_OPERATOR_APPARMOR_H

#include <glib.h>

typedef enum AppArmor {
    APPARMOR_ABSENT,  /* not at work on this host, or not for libvirt's QEMUs */
    APPARMOR_ALLOWS,  /* our rules are included */
    APPARMOR_FORBIDS, /* our rules are missing */
} AppArmor;

/* Below root, which is "" but for tests. */
AppArmor apparmor_state(const char *root);

#endif
