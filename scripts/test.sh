#!/usr/bin/env bash
# All that `make test` does: preparations, format, lints, every test, doc tests.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
cd "$root"

scripts/prepare.sh
say "checking the format"
cargo fmt --check
rustfmt --check --edition 2024 --config-path "$root" demo/app/main.rs
say "checking the lints"
cargo clippy --locked --all-targets -- -D warnings

# The tests share one registry, and the engine keeps the images they pulled.
tidy_up() {
    choose_docker
    mapfile -t images < <(docker images --all --quiet --no-trunc --filter label=io.cotter.demo=tests | sort -u)
    [ "${#images[@]}" = 0 ] || docker rmi --force "${images[@]}" >/dev/null 2>&1 || true
    scripts/ensure-registry.sh .registry stop
    rm -rf .registry
}

if engine_answers; then
    trap tidy_up EXIT
else
    # This user may not use the engine: the tests are built as this user and run by root.
    target=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${target}_RUNNER=sudo env PATH=$PATH HOME=$HOME"
    trap 'sudo env PATH="$PATH" HOME="$HOME" bash -c ". scripts/lib.sh; $(declare -f tidy_up); tidy_up"' EXIT
fi
cargo test --locked
