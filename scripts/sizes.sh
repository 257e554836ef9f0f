#!/usr/bin/env bash
# The sizes that the README tells: `make sizes`. A release build of the agent, five services
# on this machine's engine, a fleet server and a registry on loopback.
#
# Prints, one `name value unit` a line: the binary's size; the agent's share of memory after a
# minute of rest, what it writes to disk and how long it computes in that minute; the time from
# its start to the first status that tells what the engine has; and how many calls and
# connections to the engine a look costs that changes nothing (tests/device/rest.rs counts).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
work=$root/.sizes
cotter=${CARGO_TARGET_DIR:-$root/target}/release/cotter
token=$work/fleet/operator.token
instances=(sizes)
key=sizes-$(printf '%s' "$work" | cksum | cut -d' ' -f1)
services=5
rest_s=${COTTER_SIZES_REST:-60}
starts=5
# shellcheck source=demo/lib.sh
. "$root/demo/lib.sh"
for name in "${!COTTER_@}"; do
    [ "$name" = COTTER_ENGINE_SOCKET ] || unset "$name"
done

[ ${#work} -le 85 ] || die "the path of this folder is too long for a unix socket in it: use a shorter one"
"$root/scripts/prepare.sh"
(cd "$root" && cargo build --release --locked)
engine_answers || die "this user may not use $COTTER_ENGINE_SOCKET: run this as root"
choose_docker
exec 9<"$root/scripts/sizes.sh"
flock -n 9 || die "the sizes are being taken by another process"
tidy_up
(umask 077 && mkdir "$work")
trap 'exit 130' INT TERM HUP
trap tidy_up EXIT

registry=$("$root/scripts/ensure-registry.sh" "$work/registry")
"$root/scripts/build-demo-images.sh" "$registry" "$key" r1 >"$work/images"
{
    echo "services:"
    for ((i = 1; i <= services; i++)); do
        printf '  web%d:\n    image: %s/demo/app:r1\n' "$i" "$registry"
    done
} >"$work/r1.yml"

start fleet fleet serve --listen 127.0.0.1:0 --data-dir "$work/fleet" --poll-interval 10s
url=$(fleet_url)
cli fleet create sizes --json >"$work/fleet.json"
json uuid <"$work/fleet.json" >"$work/app"
(umask 077 && json provisioning_key <"$work/fleet.json" >"$work/provisioning.key")
cli release create sizes --file "$work/r1.yml" --commit r1 >/dev/null
cat >"$work/sizes.toml" <<END
instance = "sizes"
state_dir = "$work/sizes/state"
runtime_dir = "$work/sizes/run"

[engine]
socket = "$COTTER_ENGINE_SOCKET"

[cloud]
endpoint = "$url"
fleet = $(json number <"$work/fleet.json")
provisioning_key_file = "$work/provisioning.key"
device_type = "generic-amd64"
device_name = "sizes"
poll_interval = "10s"
END

# How many services the agent's status says run now; 0 while it does not answer.
running() {
    { curl -fsS --max-time 2 --unix-socket "$work/sizes/run/status.sock" http://agent/v1/status 2>/dev/null || true; } |
        { grep -o '"status":[[:space:]]*"Running"' || true; } | wc -l
}

# Starts the agent and waits until it has seen all services run, $1 seconds at most.
begin() {
    local end=$((SECONDS + $1))
    start sizes agent --config "$work/sizes.toml"
    while [ "$(running)" != "$services" ]; do
        runs sizes || miss "the agent ended: $(tail -n 1 "$work/sizes.log")"
        ((SECONDS < end)) || miss "after $1 s the agent does not see $services services run"
    done
}

# Nanoseconds that the agent's threads have computed. Threads that ended are not in it.
computed() { cat "/proc/$(cat "$work/sizes.pid")"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f", sum }'; }

written() { sed -n 's/^write_bytes: //p' "/proc/$(cat "$work/sizes.pid")/io"; }

begin 60
until cli device show sizes --json | grep -q '"running": "r1"'; do sleep 0.5; done
say "at rest for $rest_s s"
sleep 5
before=$(written) computed_before=$(computed)
sleep "$rest_s"
after=$(written) computed_after=$(computed)
pss=$(sed -n 's/^Pss: *\([0-9]*\) kB$/\1/p' "/proc/$(cat "$work/sizes.pid")/smaps_rollup")

# From starting the process to the first status that tells all services; the look of this
# script itself, some milliseconds, is in it.
times=()
for ((i = 0; i < starts; i++)); do
    stop_process "$(cat "$work/sizes.pid")" "$work/" 20
    from=${EPOCHREALTIME/[.,]/}
    begin 20
    times+=($(((${EPOCHREALTIME/[.,]/} - from) / 1000)))
done
median=$(printf '%s\n' "${times[@]}" | sort -n | sed -n "$((starts / 2 + 1))p")

stop_process "$(cat "$work/sizes.pid")" "$work/" 20
say "counting what a look costs"
calls=$(cd "$root" && COTTER_TEST_BINARY=$cotter cargo test --quiet --locked --test device rest:: -- --nocapture |
    grep '^engine_[a-z_]* [0-9]* [a-z]*$') || die "the count failed: \`cargo test --test device rest::\` says why"

per() { awk -v n="$1" -v per="$2" 'BEGIN { printf "%.2f", n / per }'; }
echo "release_binary $(per "$(stat -c %s "$cotter")" 1048576) MiB"
echo "pss_at_rest_${services}_services $(per "$pss" 1024) MiB"
echo "computed_in_${rest_s}s_of_rest $(per $((computed_after - computed_before)) 1000000) ms"
echo "written_in_${rest_s}s_of_rest $((after - before)) bytes"
echo "start_to_first_observation $median ms"
echo "$calls"
