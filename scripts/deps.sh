#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Installs the Debian packages that building and testing need, if any is missing.
#
#   scripts/deps.sh [--sanitize] [--check] [--bench]
set -euo pipefail

base=(
    gcc libc6-dev cmake ninja-build pkg-config
    liburing-dev libibverbs-dev ibverbs-providers libevent-dev libglib2.0-dev libjson-glib-dev libcmocka-dev libsystemd-dev
    libvirt-dev libxml2-dev libvirt-daemon-system libvirt-clients
    libvirt-daemon-driver-qemu qemu-system-x86 python3 iproute2 iptables util-linux spin groff-base
)
# llvm names the functions in the sanitizers' reports.
sanitize=(clang libclang-rt-dev llvm)
check=(clang-format clang-tidy shellcheck git)
# perf counts system calls.
bench=(linux-perf)

usage() {
    echo "usage: scripts/deps.sh [--sanitize] [--check] [--bench]"
}

wanted=("${base[@]}")
for argument in "$@"; do
    case $argument in
    --sanitize) wanted+=("${sanitize[@]}") ;;
    --check) wanted+=("${check[@]}") ;;
    --bench) wanted+=("${bench[@]}") ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
done

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    echo "deps.sh: not a Debian system; this needs the equivalents of: ${wanted[*]}" >&2
    exit 0
fi

missing=()
for package in "${wanted[@]}"; do
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [[ $status == installed* ]] || missing+=("$package")
done
if [[ ${#missing[@]} -eq 0 ]]; then
    exit 0
fi

if [[ $(id -u) -ne 0 ]]; then
    echo "deps.sh: run as root: apt-get install ${missing[*]}" >&2
    exit 1
fi

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null
}

output=$(mktemp)
trap 'rm -f "$output"' EXIT

echo "== installing ${missing[*]}"
# One stale source must not hide that the others have what is needed.
apt update >"$output" 2>&1 || true
if ! apt install -y --no-install-recommends "${missing[@]}" >>"$output" 2>&1; then
    tail -n 30 "$output" >&2
    echo "deps.sh: apt-get could not install: ${missing[*]}" >&2
    exit 1
fi
