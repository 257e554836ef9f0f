#!/usr/bin/env bash
# The checks that need neither engine nor registry: `make check`. Format, lints, documentation, the device's build, unit tests.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
cd "$root"

scripts/lints.sh
say "running the unit tests"
cargo test --locked --lib
cargo test --locked --test floors
