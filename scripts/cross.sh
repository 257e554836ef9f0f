#!/usr/bin/env bash
# The devices' architectures: `make cross`. Each binary of the agent is built, weighed, and run under
# qemu-user by tests of the whole device, with the real engine of this machine.
#
#   scripts/cross.sh [TARGET...]          all three, or these; release binaries, 10 MiB at most
#   scripts/cross.sh --quick TARGET...    as tests are built, and not weighed: part of `make test`
#
# This machine's own target is none of the three, and may be said: `make test` does. It needs no qemu.
# A target that cannot be had here is skipped with a line that says why. ZIG=1: build-for.sh.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
cd "$root"

limit=$((10 * 1024 * 1024))
# Start, store, observe, update and its rollback, the socket and the command line, SIGTERM and SIGKILL.
tests=(
    update::a_device_follows_its_policy_and_touches_only_what_changed
    trial::a_bad_release_is_rolled_back_and_reported_everywhere
    restart::killed_and_without_a_cloud_it_knows_its_release_and_touches_no_container
    restart::sigterm_ends_it_soon_and_containers_stay
)

quick=()
if [ "${1:-}" = --quick ]; then
    quick=(--quick)
    shift
fi
targets=("$@")
[ $# -gt 0 ] ||
    targets=(aarch64-unknown-linux-gnu armv7-unknown-linux-gnueabihf aarch64-unknown-linux-musl)

scripts/prepare.sh
command -v readelf >/dev/null || apt_install "to look at what is built" binutils

results=()
for target in "${targets[@]}"; do
    by=$(emulator "$target")
    how=
    if [ -n "$by" ]; then
        command -v "${by%% *}" >/dev/null || apt_install "to run what is built for ARM" qemu-user-static
        how=" under qemu"
    fi
    say "building for $target"
    binary=$(scripts/build-for.sh "${quick[@]}" "$target") || {
        [ $? = 3 ] || die "the build for $target failed"
        results+=("$target: skipped")
        continue
    }
    needs=$(glibc_of "$binary")
    size=$(stat -c %s "$binary")
    [ ${#quick[@]} -gt 0 ] || ((size <= limit)) || die "$binary has $size bytes, and $limit are allowed"
    say "running tests of the whole device with it"
    out=$(COTTER_TEST_AGENT="$by $binary" \
        cargo test --locked --test device -- --exact "${tests[@]}" 2>&1) || {
        say "$out"
        die "$target does not do what it should"
    }
    # A test that was renamed would otherwise be left out in silence.
    grep -q " ${#tests[@]} passed; 0 failed" <<<"$out" || die "not all of these ran: ${tests[*]}"
    results+=("$(awk -v t="$target" -v s="$size" -v g="${needs:-none}" -v n="${#tests[@]}" \
        -v how="$how" 'BEGIN { printf "%-30s %5.2f MiB   glibc %-5s  %d tests%s", t, s / 1048576, g, n, how }')")
done
printf '%s\n' "${results[@]}"
