#!/usr/bin/env bash
# The attacks of tests/hostile on the release binaries, with the limits of their units. Part of `make test` for root.
#
#   scripts/hostile.sh [FILTER...]    all of them, or those whose names contain one of these
#
# As root: the limits are control groups. `cargo test --test hostile` plays them against the binaries of the tests.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
cd "$root"

scripts/prepare.sh
say "building the release binaries"
binary=$(scripts/build-for.sh "$(host_target)")
fleet_binary=$(scripts/build-for.sh "$(host_target)" cotter-fleet)
say "attacking an agent and a fleet server as they are shipped"
COTTER_TEST_BINARY=$binary COTTER_TEST_AGENT=$binary COTTER_TEST_FLEET_BINARY=$fleet_binary \
    cargo test --locked --test hostile -- "$@"
