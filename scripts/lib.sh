#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Shell functions that the scripts share. Sourced, not run; changes to the top folder.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# One line a run, as "PRESET: ctest's closing line", and how many runs failed.
run_summary=()
runs_failed=0

log() {
    printf '== %s\n' "$*"
}

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# build_preset PRESET: configures and builds build/PRESET.
build_preset() {
    log "$1: configure and build"
    cmake --preset "$1" && cmake --build --preset "$1"
}

# The sanitizers' fixed shadow addresses may collide with a highly randomised address space.
without_aslr() {
    if setarch -R true 2>/dev/null; then
        setarch -R "$@"
    else
        "$@"
    fi
}

# summarize PRESET LOG: keeps what ctest said last, and which tests failed or were skipped.
summarize() {
    local closing others
    closing=$(grep -E 'tests passed, .* out of|No tests were found' "$2" | tail -n 1)
    others=$(sed -n '/^The following tests did not run:/,$p; /^The following tests FAILED:/,$p' "$2" |
        grep -E '^[[:space:]]+[0-9]+ - ' | sort -u)
    run_summary+=("$1: ${closing:-ctest did not finish}${others:+$'\n'$others}")
}

# run_tests PRESET [CTEST ARGUMENTS]: runs the tests of a preset that is built.
run_tests() {
    local preset=$1 output=build/$1/test.log
    local -a command=(ctest --preset "$preset" --no-label-summary)
    shift
    case $preset in
    asan | tsan | fuzz) command=(without_aslr "${command[@]}" -j4) ;; # many of theirs wait
    *) command+=(-j4) ;;
    esac

    log "$preset: ctest $*"
    local status=0
    "${command[@]}" "$@" 2>&1 | tee "$output" || status=1
    summarize "$preset" "$output"
    return "$status"
}

# run_preset PRESET [CTEST ARGUMENTS]: builds and tests. A failure is counted, not fatal: the
# other runs have something to say too.
run_preset() {
    local preset=$1
    if ! build_preset "$preset"; then
        run_summary+=("$preset: does not build")
        runs_failed=$((runs_failed + 1))
    elif ! run_tests "$@"; then
        runs_failed=$((runs_failed + 1))
    fi
}

# What measures its own time or waits for a minute has nothing to say there, and what has one thread no races.
run_sanitizers() {
    local timed='^integration[.](limit|pace|size)[.]|^integration[.](lent[.]unread|bad_setup[.]client_without_daemon)$'
    run_preset asan -E "$timed"
    run_preset tsan -E "$timed|^integration[.](hook|ctl_host|bad_setup|domains)[.]"
}

# finish: prints how every run ended, and exits.
finish() {
    log "summary"
    printf '%s\n' "${run_summary[@]}"
    if [[ $runs_failed -gt 0 ]]; then
        log "$runs_failed of ${#run_summary[@]} failed"
        exit 1
    fi
    log "all ${#run_summary[@]} passed"
    exit 0
}
