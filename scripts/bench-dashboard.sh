#!/usr/bin/env bash
# All that `make bench-dashboard` does: builds the fleet server as it is shipped, and measures its pages with 10,000 devices in a
# real Chromium (tests/browser/bench.rs). It prints a table, and fails if a figure is over its budget.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
cd "$root"

scripts/prepare.sh
server=$(scripts/build-for.sh "$(host_target)" cotter-fleet)
COTTER_BENCH_DASHBOARD=1 COTTER_SKIP_NOTHING=1 COTTER_TEST_FLEET_BINARY=$(realpath "$server") \
    cargo test --locked --test browser bench:: -- --nocapture
