#!/usr/bin/env bash
# Format and lints, with and without the fleet server: what `make check` and `make test` have in common.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
cd "$root"

say "checking the format"
cargo fmt --check
rustfmt --check --edition 2024 --config-path "$root" demo/app/main.rs
say "checking the lints"
cargo clippy --locked --all-targets -- -D warnings
say "checking the lints of the device's build, which has no server"
cargo clippy --locked --no-default-features --lib --bin cotter -- -D warnings
if command -v shellcheck >/dev/null; then
    say "checking the shell scripts"
    shellcheck -x scripts/*.sh packaging/install.sh demo/*.sh .ci/run
else
    say "skipped: the lints of shell scripts, because shellcheck is not installed"
fi
