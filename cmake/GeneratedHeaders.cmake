# SPDX-License-Identifier: GPL-2.0-or-later
#
# version.h and paths.h, the headers that configuring writes.

set(postcopyd_generated_dir "${PROJECT_BINARY_DIR}/generated")
configure_file(cmake/version.h.in "${postcopyd_generated_dir}/version.h" @ONLY)
configure_file(cmake/paths.h.in "${postcopyd_generated_dir}/paths.h" @ONLY)

# Includes are written from the top ("protocol/wire.h"), or, inside the daemon, from daemon/
# ("core/region.h").
include_directories(
    "${PROJECT_SOURCE_DIR}"
    "${PROJECT_SOURCE_DIR}/daemon"
    "${postcopyd_generated_dir}")
