#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Builds postcopyd and lets a running QEMU guest continue on another daemon while its memory
# arrives, every word of it verified.
#
#   sudo scripts/demo.sh [--mem MiB] [--fill MiB] [--vcpus N] [--json FILE]
set -euo pipefail

# Files are named from where the caller stands.
arguments=()
while [[ $# -gt 0 ]]; do
    case $1 in
    --json | --keep)
        arguments+=("$1" "$(realpath -m -- "${2:?"$1 needs a name"}")")
        shift 2
        ;;
    *)
        arguments+=("$1")
        shift
        ;;
    esac
done

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case " ${arguments[*]-} " in
*" -h "* | *" --help "*)
    echo "usage: scripts/demo.sh [--mem MiB] [--fill MiB] [--vcpus N] [--json FILE]"
    exit 0
    ;;
esac
[[ $(id -u) -eq 0 ]] || die "run as root: it needs /dev/kvm, userfaultfd and, at first, apt-get"

scripts/deps.sh
mkdir -p build
if ! build_preset release >build/demo-build.log 2>&1; then
    tail -n 40 build/demo-build.log >&2
    die "the build failed"
fi
export PYTHONDONTWRITEBYTECODE=1
exec python3 tests/e2e/demo.py "${arguments[@]}"
