/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef POSTCOPYD_CTL_ERROR_H
#define POSTCOPYD_CTL_ERROR_H

#include "protocol/qmp/error.h"

/* The exit status that goes with an error. */
int ctl_error_status(const GError *error);

#endif
