#!/usr/bin/env bash
# All that `cargo test` runs, several test programs at a time; part of `make test`. `cargo test` does the same one program after
# the other.
#
#   scripts/run-tests.sh [COMMAND...]      with a command that runs beside the tests, e.g. a build that is needed after them
#
# Most tests of a whole device wait: for containers, healthchecks, timeouts and power cuts. So the programs that wait most
# run in lanes beside each other, and the tests that compute run beside them with a lower priority. Each lane is one run of
# cargo, and its output is shown when it ends.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
cd "$root"

# Each line is a lane: the programs that it runs, one after the other.
lanes=(
    "device"
    "power_cut faults"
    "compose push"
    "engine_contract store_damage openapi"
    "browser"
)
# Cargo.toml keeps these out of `cargo test`. They have scripts of their own.
others="hostile systemd"
# Most tests of a device wait at any time, so more of them run than there are processors.
device_threads=4
# A lane that takes longer hangs: it is ended, and what it printed names the tests that were running. In seconds.
lane_limit=${COTTER_LANE_LIMIT:-2400}

log=$(mktemp -d)
declare -A lane_of=()
# Each lane is a group of processes, so that an interrupted run leaves none behind.
end() {
    local pid
    for pid in "${!lane_of[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done
    rm -rf "$log"
}
trap end EXIT
trap 'exit 130' INT TERM

say "building the tests"
cargo test --locked --no-run --quiet

# `start NAME COMMAND...`: begins a lane.
start() {
    local name=$1
    shift
    # Not in the foreground, so that `timeout` ends the whole group.
    setsid timeout --kill-after=30 "$lane_limit" "$@" >"$log/$name" 2>&1 </dev/null &
    lane_of[$!]=$name
}

rest=(--lib --bins)
for path in tests/*.rs tests/*/main.rs; do
    name=${path#tests/}
    name=${name%/main.rs}
    name=${name%.rs}
    case " ${lanes[*]} $others " in *" $name "*) ;; *) rest+=(--test "$name") ;; esac
done
for lane in "${lanes[@]}"; do
    tests=()
    for name in $lane; do tests+=(--test "$name"); done
    threads=()
    [ "$lane" != device ] || threads=("--test-threads=$device_threads")
    start "${lane// /+}" cargo test --locked --no-fail-fast "${tests[@]}" -- "${threads[@]}"
done
# shellcheck disable=SC2016 # the inner shell expands them
start rest nice -n 10 sh -c 'cargo test --locked --no-fail-fast "$@"; status=$?; cargo test --locked --doc && exit $status' \
    sh "${rest[@]}"
[ $# = 0 ] || start beside nice -n 19 "$@"

# The failed tests in the output of lane $1, as filters of cargo.
failed_tests() { sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log/$1"; }

# The tests in the output of lane $1 that were said to run for long and have no result.
unfinished_tests() {
    local name
    sed -n 's/^test \(.*\) has been running for over .*$/\1/p' "$log/$1" | sort -u | while read -r name; do
        grep -qE "^test $name( - should panic)? \.\.\. " "$log/$1" || printf '%s ' "$name"
    done
}

# Lane $1 once more, only with what failed. A test that then passes depends on something else than the code: on a busy machine,
# or on an engine with an own mind. It is named at the end, with its first failure above. Many failures are none of that kind.
passes_alone() {
    local lane=$1 name tests=() again=()
    mapfile -t again < <(failed_tests "$lane")
    [ ${#again[@]} -gt 0 ] && [ ${#again[@]} -le 3 ] || return 1
    # A program that was ended by a signal names none of its tests.
    ! grep -q '(signal: ' "$log/$1" || return 1
    for name in ${lane//+/ }; do tests+=(--test "$name"); done
    [ "$lane" != rest ] || tests=("${rest[@]}")
    say "tests $lane: once more, on a quiet machine: ${again[*]}"
    cargo test --locked --no-fail-fast "${tests[@]}" -- --exact "${again[@]}" || return 1
    unsteady+=("${again[@]}")
}

failed=()
hung=()
unsteady=()
begun=$SECONDS
while [ ${#lane_of[@]} -gt 0 ]; do
    status=0
    wait -n -p pid "${!lane_of[@]}" || status=$?
    name=${lane_of[$pid]}
    unset "lane_of[$pid]"
    cat "$log/$name"
    say "tests $name: $((SECONDS - begun)) s, status $status"
    if [ "$status" = 124 ] || [ "$status" = 137 ]; then
        say "tests $name: ended after $lane_limit s; begun and not finished: $(unfinished_tests "$name")"
        hung+=("$name")
    fi
    [ "$status" = 0 ] || failed+=("$name")
done
still=()
for name in "${failed[@]}"; do
    case " beside ${hung[*]} " in
        *" $name "*) still+=("$name") ;;
        *) passes_alone "$name" || still+=("$name") ;;
    esac
done
[ ${#unsteady[@]} = 0 ] || say "UNSTEADY, failed once and passed alone: ${unsteady[*]}"
[ ${#still[@]} = 0 ] || die "tests failed in: ${still[*]} (see above)"
