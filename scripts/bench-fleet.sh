#!/usr/bin/env bash
# All that `make bench-fleet` does: builds the fleet server as it is shipped, and measures it (benches/fleet). The server runs on
# one processor, the load on another.
#
#   scripts/bench-fleet.sh [--devices N] [--releases N]
#   scripts/bench-fleet.sh --postgres [--devices N] [--releases N] [--kills N]    two servers on one PostgreSQL
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
cd "$root"

scripts/prepare.sh --to-build
command -v taskset >/dev/null || apt_install "to give the server and the load a processor each" util-linux
[ "$(nproc)" -ge 2 ] || die "this needs two processors: one for the server, one for the load"
# A file for each connection, on both sides.
ulimit -n "$(ulimit -Hn)"
server=$(scripts/build-for.sh "$(host_target)" cotter-fleet)
cargo bench --locked --profile load --bench fleet --no-run
program=$(cargo bench --locked --profile load --bench fleet --no-run 2>&1 | sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
exec taskset --cpu-list 1 "$program" --server "$server" "$@"
