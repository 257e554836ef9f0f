#!/usr/bin/env bash
# The fault matrix in full: every cell on the fake engine, then random faults on a real one.
#
#   scripts/faults.sh [SECONDS]    how long the real engine is troubled, 300 unless said
#
# COTTER_FAULT=SCENARIO/FAULT/INDEX repeats a cell of the first, COTTER_FAULT_SEED the choices of the second.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
cd "$root"

is_root || die "the real engine of the second part is started by root: run \`sudo make faults\`"
seconds=${1:-300}
out=$(mktemp)
# What the tests that use real parts leave: images, and their registry.
tidy() {
    rm -f "$out"
    scripts/test-parts.sh stop
}
trap tidy EXIT

scripts/prepare.sh
# Shows the lines of a test's output that are for people, and all of it if the test failed.
show() {
    if "$@" >"$out" 2>&1; then
        grep -Ev '^(running|test |$)|Running|Finished|Compiling' "$out" || true
        echo
    else
        cat "$out"
        exit 1
    fi
}
say "every boundary times every fault, on the fake engine"
export COTTER_FAULTS=all
show cargo test --locked --lib any_boundary_exactly_one_release -- --nocapture
say "faults at random moments, on a real engine, for $seconds s"
COTTER_FAULT_SECONDS=$seconds show cargo test --locked --test faults -- --nocapture
