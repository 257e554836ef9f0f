#!/usr/bin/env bash
# Which functions an agent runs: `make order`. Tests of the whole device run it in callgrind, and
# linker/agent.ld is written anew, which lays these functions side by side. Worth a run when the
# memory that `make bench` tells has grown; 3 minutes.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
cd "$root"

# What devices do all day, and what they do with a release, a good one and a bad one.
tests=(
    update::a_device_follows_its_policy_and_touches_only_what_changed
    trial::a_bad_release_is_taken_back_and_told_everywhere
    restart::killed_and_without_a_cloud_it_knows_its_release_and_touches_nobody
    restart::sigterm_ends_it_soon_and_containers_stay
)

scripts/prepare.sh
command -v valgrind >/dev/null || apt_install "to see which functions run" valgrind
command -v nm >/dev/null || apt_install "to see what is built" binutils
work=${CARGO_TARGET_DIR:-target}/order
rm -rf "$work"
mkdir -p "$work/runs"

say "building it with the names of all functions, none of them folded into another"
cargo rustc --release --locked --bin cotter -- -C strip=none -C link-arg=-Wl,--icf=none
cp "${CARGO_TARGET_DIR:-target}/release/cotter" "$work/cotter"
nm --print-size "$work/cotter" >"$work/symbols"
say "running tests of the whole device in callgrind"
callgrind="valgrind --quiet --tool=callgrind --demangle=no --callgrind-out-file=$PWD/$work/runs/%p"
COTTER_TEST_AGENT="$callgrind $PWD/$work/cotter" cargo test --locked --test device -- --exact "${tests[@]}"
cargo run --quiet --locked --example order -- "$work/symbols" "$work/runs" >"$work/agent.ld"
mv "$work/agent.ld" linker/agent.ld
