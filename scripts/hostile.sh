#!/usr/bin/env bash
# The attacks of tests/hostile on the release binaries, with the limits of their units. Part of `make test` for root.
#
#   scripts/hostile.sh [FILTER...]            all of them, or those whose names contain one of these
#   scripts/hostile.sh --quick [FILTER...]    the same with the fleet server as `cargo test` builds it, as `make test` does
#
# As root: the limits are control groups. `cargo test --test hostile` plays them against the binaries of the tests.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
cd "$root"

is_quick=
if [ "${1:-}" = --quick ]; then
    is_quick=1
    shift
fi
scripts/prepare.sh
say "building the release binaries"
binary=$(scripts/build-for.sh "$(host_target)")
export COTTER_TEST_BINARY=$binary COTTER_TEST_AGENT=$binary
if [ -z "$is_quick" ]; then
    COTTER_TEST_FLEET_BINARY=$(scripts/build-for.sh "$(host_target)" cotter-fleet)
    export COTTER_TEST_FLEET_BINARY
fi
say "attacking an agent and a fleet server with the limits of their units"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test --locked --no-fail-fast --test hostile -- "$@" 2>&1 | tee "$log" || status=$?
[ "$status" != 0 ] || exit 0
# As in run-tests.sh: what passes alone depends on something else than the code. It is named, with its first failure above.
mapfile -t again < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log")
if [ ${#again[@]} = 0 ] || [ ${#again[@]} -gt 2 ] || grep -q '(signal: ' "$log"; then exit "$status"; fi
say "attacks: once more, alone: ${again[*]}"
cargo test --locked --test hostile -- --exact "${again[@]}"
say "UNSTEADY, failed once and passed alone: ${again[*]}"
