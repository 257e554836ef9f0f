#!/usr/bin/env bash
# Format, lints with and without the fleet server, documentation: what `make check` and `make test` have in common.
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
say "checking the documentation"
# With the example, dependencies have the features that the lints and tests have, and are not compiled once more.
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --no-deps --document-private-items \
    --lib --bin cotter-fleet --example manual
if command -v shellcheck >/dev/null; then
    say "checking the shell scripts"
    shellcheck -x scripts/*.sh packaging/install.sh demo/*.sh .ci/run
else
    say "skipped: the lints of shell scripts, because shellcheck is not installed"
fi
