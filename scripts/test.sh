#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Builds postcopyd and runs its tests: everything as shipped, then the unit, stress and
# integration tests under the sanitizers, then the fuzzers.
#
#   scripts/test.sh [--quick]
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    echo "usage: scripts/test.sh [--quick]"
    echo "  --quick  the release build only, without the end-to-end tests"
}

case $# in
0) quick=no ;;
1) quick=$1 ;;
*) quick=unknown ;;
esac

case $quick in
no)
    scripts/deps.sh --sanitize
    run_preset release
    run_sanitizers
    run_preset fuzz
    ;;
--quick)
    scripts/deps.sh
    run_preset release -LE e2e
    ;;
-h | --help)
    usage
    exit 0
    ;;
*)
    usage >&2
    exit 2
    ;;
esac
finish
