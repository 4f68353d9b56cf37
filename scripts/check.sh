#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Every check of the code, then its tests under the sanitizers.
#
#   scripts/check.sh [--static]
#
# check() calls the functions by name:
# shellcheck disable=SC2317
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    echo "usage: scripts/check.sh [--static]"
    echo "  --static  only what needs no running code"
}

static=no
case ${1-} in
'') ;;
--static) static=yes ;;
-h | --help)
    usage
    exit 0
    ;;
*)
    usage >&2
    exit 2
    ;;
esac

# files PATTERN…: what git tracks or would track, and is there.
files() {
    git ls-files -z --cached --others --exclude-standard -- "$@" |
        while IFS= read -r -d '' file; do
            [[ ! -f $file ]] || printf '%s\0' "$file"
        done
}

shell_files() {
    files '*.sh' '.ci/run'
}

check_format() {
    files '*.c' '*.h' | xargs -0 -r clang-format --dry-run -Werror
}

check_layering() {
    python3 scripts/layering.py
}

check_shell() {
    local file
    while IFS= read -r -d '' file; do
        bash -n "$file" || return 1
    done < <(shell_files)
    shell_files | xargs -0 -r shellcheck -x
}

check_python() {
    files '*.py' | xargs -0 -r python3 -c '
import ast, sys
for path in sys.argv[1:]:
    ast.parse(open(path, encoding="utf-8").read(), path)'
}

# The compile commands come from a preset that uses clang, so clang-tidy knows every flag.
check_tidy() {
    cmake --preset asan >/dev/null || return 1
    local noise status=0
    noise=$(mktemp)
    python3 - build/asan/compile_commands.json <<'PYTHON' |
import json, os, sys
top = os.getcwd()
for entry in json.load(open(sys.argv[1])):
    path = os.path.relpath(os.path.join(entry["directory"], entry["file"]), top)
    if path.split(os.sep)[0] in ("protocol", "client", "daemon") and path.endswith(".c"):
        sys.stdout.write(path + "\0")
PYTHON
        sort -zu | xargs -0 -r -n 2 -P 2 clang-tidy --quiet -p build/asan 2>"$noise" || status=1
    [[ $status -eq 0 ]] || grep -v 'warnings\? generated' "$noise" >&2 || true
    rm -f "$noise"
    return "$status"
}

check_units() {
    if ! command -v systemd-analyze >/dev/null; then
        echo "skipped: there is no systemd-analyze here"
        return 0
    fi
    local folder status=0
    folder=$(mktemp -d)
    cp systemd/postcopyd.socket "$folder"
    # The program need not be installed to check the unit.
    sed -e 's|@bindir@/postcopyd|/bin/true|' -e 's|@sysconfdir@|/etc|' \
        systemd/postcopyd.service.in >"$folder/postcopyd.service"
    systemd-analyze verify --man=no "$folder"/postcopyd.{socket,service} || status=1
    rm -rf "$folder"
    return "$status"
}

# check NAME: runs check_NAME and notes how it ended.
check() {
    log "$1"
    if "check_$1"; then
        run_summary+=("$1: passed")
    else
        run_summary+=("$1: FAILED")
        runs_failed=$((runs_failed + 1))
    fi
}

scripts/deps.sh --sanitize --check
for name in format layering shell python units tidy; do
    check "$name"
done
if [[ $static == no ]]; then
    run_sanitizers
fi
finish
