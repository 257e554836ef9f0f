#!/usr/bin/env bash
# All that `make bench-rollouts` does: builds the fleet server as it is shipped, and lets it simulate rollouts (benches/rollouts).
#
#   scripts/bench-rollouts.sh [--devices N] [--runs N]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
cd "$root"

scripts/prepare.sh --to-build
server=$(scripts/build-for.sh "$(host_target)" cotter-fleet)
cargo bench --locked --profile load --bench rollouts -- --server "$server" "$@"
