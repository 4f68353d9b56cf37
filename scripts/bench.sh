#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Builds postcopyd and measures it: a whole migration against QEMU's own post-copy (main), the way of a
# fault, part by part, against what it replaces and against its floor (fault), libvirt's post-copy with
# our help against without (libvirt), and RDMA against TCP, in an emulated guest with a device that is none (rdma).
#
#   sudo scripts/bench.sh main [--json FILE] [--rounds N] [--mem MiB] [--fill MiB] [--vcpus N]
#   sudo scripts/bench.sh fault [--json FILE] [--rounds N] [--only TEXT] [--quick]
#   sudo scripts/bench.sh rdma [--json FILE] [--rounds N]
#   sudo scripts/bench.sh libvirt [--json FILE] [--rounds N] [--rate MiB/s] [--link RATE] [--backend memfd|anon]
set -euo pipefail

usage() {
    echo "usage: scripts/bench.sh main [--json FILE] [--rounds N] [--mem MiB] [--fill MiB]" \
        "[--vcpus N] [--only TEXT]"
    echo "       scripts/bench.sh fault [--json FILE] [--rounds N] [--only TEXT] [--quick]"
    echo "       scripts/bench.sh rdma [--json FILE] [--rounds N]"
    echo "       scripts/bench.sh libvirt [--json FILE] [--rounds N] [--mem MiB] [--fill MiB]" \
        "[--vcpus N] [--backend memfd|anon] [--rate MiB/s] [--link RATE] [--around BYTES]"
}

# Files are named from where the caller stands.
arguments=()
while [[ $# -gt 0 ]]; do
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    --json)
        if [[ -z ${2-} ]]; then
            echo "bench.sh: $1 needs a name" >&2
            exit 2
        fi
        arguments+=("$1" "$(realpath -m -- "$2")")
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

bench=${arguments[0]-}
if [[ -z $bench || ! -f tests/bench/$bench.py || $bench == *_* ]]; then
    usage >&2
    exit 2
fi
[[ $(id -u) -eq 0 ]] || die "run as root: it needs /dev/kvm, userfaultfd and, at first, apt-get"

scripts/deps.sh
[[ $bench != fault ]] || scripts/deps.sh --bench ||
    echo "bench.sh: without perf, system calls are counted by strace or not at all" >&2
[[ $bench != rdma ]] || scripts/deps.sh --bench
mkdir -p build
if ! build_preset release >build/bench-build.log 2>&1; then
    tail -n 40 build/bench-build.log >&2
    die "the build failed"
fi
export PYTHONDONTWRITEBYTECODE=1
exec python3 "tests/bench/$bench.py" "${arguments[@]:1}"
