#!/usr/bin/env bash
# Fuzzes what comes from outside, with the stable compiler: what is found fails it.
#
#   scripts/fuzz.sh [SECONDS]    how long each target runs, 60 unless said
#
# It begins with tests/corpus and what earlier runs kept in fuzz/corpus. An input that ends the program, takes more
# than 5 s or more than 1 GiB is left in fuzz/artifacts; put it into tests/corpus once its answer is right.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
cd "$root"

seconds=${1:-60}
command -v c++ >/dev/null || apt_install "to build the fuzzer's runtime" g++
# The compiler's own instrumentation, which needs no nightly; a sanitizer would, and finds nothing in safe code.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Ccodegen-units=1"
# With a target named, what runs while building is not instrumented.
host=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --manifest-path fuzz/Cargo.toml --target "$host"
for target in compose_file target policy answers; do
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
    say "fuzzing $target for $seconds s"
    nice "fuzz/target/$host/release/$target" "fuzz/corpus/$target" tests/corpus \
        -max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 -max_len=16384 -print_final_stats=1 \
        -artifact_prefix="fuzz/artifacts/$target/"
done
