#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Builds postcopyd and lets a running QEMU guest continue on another daemon while its memory
# arrives, every word of it verified.
#
#   sudo scripts/demo.sh [--mem MiB] [--fill MiB] [--vcpus N] [--json FILE]
set -euo pipefail

usage() {
    echo "usage: scripts/demo.sh [--mem MiB] [--fill MiB] [--vcpus N] [--json FILE] [--keep FOLDER]"
}

# wrong TEXT: says what is wrong with the call, before anything is built for it.
wrong() {
    echo "demo.sh: $1" >&2
    usage >&2
    exit 2
}

# Files are named from where the caller stands.
arguments=()
while [[ $# -gt 0 ]]; do
    [[ $1 != --*=* ]] || set -- "${1%%=*}" "${1#*=}" "${@:2}"
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    --json | --keep)
        [[ -n ${2-} ]] || wrong "$1 needs a name"
        arguments+=("$1" "$(realpath -m -- "$2")")
        shift 2
        ;;
    --mem | --fill | --vcpus | --timeout)
        [[ ${2-} =~ ^[0-9]+([.][0-9]+)?$ ]] || wrong "$1 needs a number"
        arguments+=("$1" "$2")
        shift 2
        ;;
    *)
        wrong "unknown option '$1'"
        ;;
    esac
done

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[[ $(id -u) -eq 0 ]] || die "run as root: it needs /dev/kvm, userfaultfd and, at first, apt-get"

scripts/deps.sh
mkdir -p build
if ! build_preset release >build/demo-build.log 2>&1; then
    tail -n 40 build/demo-build.log >&2
    die "the build failed"
fi
export PYTHONDONTWRITEBYTECODE=1
exec python3 tests/e2e/demo.py "${arguments[@]}"
