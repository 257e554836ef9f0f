#!/usr/bin/env bash
# The release policy, played on real Docker for the reader to watch: `make demo`.
#
#   demo/run.sh          build, play, check each act, leave nothing behind
#   KEEP=1 demo/run.sh   the same, but leave all running and say how to look
#   demo/run.sh stop     end what KEEP=1 left, or what was interrupted
#
# One machine stands for three devices, and for five in the last acts: their agents, the instances a to e, share its
# engine and see only what is theirs. Exit code 0 if every act went as it should.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
work=$root/.demo
# The demo's parts get their settings from the demo, not from whoever plays it.
for name in "${!COTTER_@}"; do
    case $name in
    COTTER_ENGINE_SOCKET | COTTER_REGISTRY_PORT | COTTER_DEMO_BUILT | COTTER_DEMO_OF_TESTS) ;;
    *) unset "$name" ;;
    esac
done
cotter=${CARGO_TARGET_DIR:-$root/target}/release/cotter
cotter_fleet=${CARGO_TARGET_DIR:-$root/target}/server/cotter-fleet
# For `make test`: the binaries of the tests, built already.
if [ -n "${COTTER_DEMO_OF_TESTS:-}" ]; then
    cotter=${CARGO_TARGET_DIR:-$root/target}/debug/cotter
    cotter_fleet=${CARGO_TARGET_DIR:-$root/target}/debug/cotter-fleet
    COTTER_DEMO_BUILT=1
fi
# All devices, and those that play already.
everyone=(a b c d e)
instances=(a b c)
token=$work/fleet/operator.token
# The fleet server's address, known once it listens.
url=
# Tells this clone's demo from any other on the same engine.
key=$(printf '%s' "$work" | cksum | cut -d' ' -f1)
# Over how many polls, one a second, nobody may move where nobody should.
quiet=4
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
# shellcheck source=demo/lib.sh
. "$root/demo/lib.sh"

main() {
    case ${1:-play} in
    play)
        [ -n "${COTTER_DEMO_BUILT:-}" ] || build
        with_engine play
        lock
        prepare
        play
        finish
        ;;
    stop)
        with_engine stop
        lock
        tidy_up
        say "the demo is gone"
        ;;
    *) die "usage: demo/run.sh [stop]" ;;
    esac
}

build() {
    [ ${#work} -le 85 ] || die "the path of this folder is too long for a unix socket in it: use a shorter one"
    "$root/scripts/prepare.sh"
    # Before the build, which takes minutes.
    if engine_answers; then
        choose_docker
        check_names
    fi
    say "building cotter and cotter-fleet (the first time takes some minutes)"
    local program
    for program in cotter cotter-fleet; do
        "$root/scripts/build-for.sh" "$(host_target)" "$program" >/dev/null
    done
}

# Goes on as root where this user may not use the engine.
with_engine() {
    if ! engine_answers && ! is_root; then
        say "this user may not use $COTTER_ENGINE_SOCKET (or no engine runs): going on with sudo"
        command -v sudo >/dev/null || die "run this as root, or add this user to the group docker"
        exec sudo env PATH="$PATH" HOME="$HOME" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-}" KEEP="${KEEP:-}" \
            NO_COLOR="${NO_COLOR:-}" COTTER_ENGINE_SOCKET="$COTTER_ENGINE_SOCKET" COTTER_DEMO_BUILT=1 \
            "$root/demo/run.sh" "$1"
    fi
    engine_answers || die "no engine answers on $COTTER_ENGINE_SOCKET: run scripts/ensure-engine.sh"
    choose_docker
}

lock() {
    exec 9<"$root/demo/run.sh"
    flock -n 9 || die "this folder's demo is being played or stopped by another process"
}

# Stops where the engine has devices of these names that are not this demo's.
check_names() {
    local device others
    for device in "${everyone[@]}"; do
        others=$(docker ps --all --filter "label=io.cotter.instance=$device" \
            --format '{{.Label "io.cotter.demo"}} {{.Names}}' | sed -n "/^$key /!s/^[^ ]* //p" | tr '\n' ' ')
        [ -z "$others" ] || die "this engine has another device $device already, with the containers ${others% }: stop it first. If it is a demo in another folder, run \`make demo-stop\` there. If that folder is gone, \`docker rm --force\` them"
    done
}

prepare() {
    title "Preparing"
    tidy_up
    check_names
    (umask 077 && mkdir "$work")
    trap interrupted INT TERM HUP
    trap ended EXIT

    local registry
    registry=$("$root/scripts/ensure-registry.sh" "$work/registry")
    event "registry on $registry"
    "$root/scripts/build-demo-images.sh" "$registry" "$key" r1 r2 r3 r4 \
        r5,DEMO_BEHAVIOUR=crash,DEMO_DELAY=0 r6,DEMO_EXIT_ON=rev2 >"$work/images"
    event "six releases of the demo app built and pushed: $(cut -d' ' -f1 "$work/images" | tr '\n' ' ')"
    local commit
    for commit in r1 r2 r3 r4 r5 r6; do
        sed "s|IMAGE|$registry/demo/app:$commit|" "$root/demo/compose.yml" >"$work/$commit.yml"
    done

    start fleet "$cotter_fleet" serve --listen 127.0.0.1:0 --data-dir "$work/fleet" --poll-interval 1s
    url=$(fleet_url)
    event "fleet server on $url"
    (umask 077 && cli fleet create demo --json >"$work/fleet.json")
    json uuid <"$work/fleet.json" >"$work/app"
    join "${instances[@]}"
    event "three agents, ${instances[*]}, have registered with the fleet demo"
}

# Starts the agents of these devices, and waits until they are registered.
join() {
    local device
    for device in "$@"; do
        # Each has its own: an agent removes its key once it is registered.
        (umask 077 && json provisioning_key <"$work/fleet.json" >"$work/$device.key")
        settings "$device" >"$work/$device.toml"
        start "$device" "$cotter" agent --config "$work/$device.toml"
    done
    local end=$((SECONDS + 20)) missing
    while :; do
        missing=()
        cli device list --json >"$work/devices.json" || true
        for device in "$@"; do
            grep -q "\"$device\"" "$work/devices.json" || missing+=("$device")
            runs "$device" || miss "the agent of $device ended: $(tail -n 1 "$work/$device.log")"
        done
        [ "${#missing[@]}" != 0 ] || break
        ((SECONDS < end)) || miss "not registered after 20 s: ${missing[*]}"
        sleep 0.2
    done
}

settings() {
    local device=$1
    cat <<END
instance = "$device"
state_dir = "$work/$device/state"
runtime_dir = "$work/$device/run"

[engine]
socket = "$COTTER_ENGINE_SOCKET"

[cloud]
endpoint = "$url"
fleet = $(json number <"$work/fleet.json")
provisioning_key_file = "$work/$device.key"
device_type = "generic-$(dpkg --print-architecture 2>/dev/null || uname -m)"
device_name = "$device"
poll_interval = "1s"
# By default a poll waits at the server for 50 s. Here each device shall soon show that it has polled and stays as it is.
poll_wait = "1s"
END
}

# An act is a title, one command and what every device has to serve after it.
act() {
    title "$1"
    act_begun=$EPOCHREALTIME
}
run() {
    event "\$ cotter ${*//"$root/"/}"
    cli "$@" >"$work/out" 2>&1 || miss "it failed: $(tail -n 1 "$work/out")"
}

play() {
    act "Release 1 is created: everybody runs it"
    run release create demo --file "$work/r1.yml" --commit r1
    expect r1 r1 r1

    act "Release 2 is created: everybody follows, because the fleet tracks the latest"
    run release create demo --file "$work/r2.yml" --commit r2
    expect r2 r2 r2

    act "The fleet is pinned to 1: everybody goes back"
    run fleet pin demo r1
    expect r1 r1 r1

    act "Release 3 is created: nobody moves, because the fleet is pinned"
    run release create demo --file "$work/r3.yml" --commit r3
    expect r1 r1 r1

    act "Device a is pinned to 3: only a moves"
    run device pin a r3
    expect r3 r1 r1

    act "The canaries, b and c, are pinned to 2 in one operation"
    run device tag b ring=canary
    run device tag c ring=canary
    run device pin --filter ring=canary r2
    sed 's/^/               /' "$work/out"
    expect r3 r2 r2

    act "Device a is un-pinned: it rejoins the fleet, which is pinned to 1"
    run device track-fleet a
    expect r1 r2 r2

    act "The fleet tracks the latest again: a follows; the canaries' own pins outlive it"
    run fleet track-latest demo
    expect r3 r2 r2

    act "The canaries are un-pinned: all three track the latest"
    run device track-fleet --filter ring=canary
    expect r3 r3 r3

    act "Release 4 is created as a draft: nobody moves"
    run release create demo --file "$work/r4.yml" --commit r4 --draft
    expect r3 r3 r3

    act "Release 4 becomes final: everybody moves"
    run release finalize r4
    expect r4 r4 r4

    act "Release 4 is invalidated: everybody falls back to 3"
    run release invalidate r4
    expect r3 r3 r3

    settle
    act "Release 5 crashes: everybody tries it, takes it back and says so"
    run release create demo --file "$work/r5.yml" --commit r5
    expect_rejected r5
    serving=()
    expect r3 r3 r3

    act "Release 5 is invalidated, and two more devices, d and e, join: all five run 3"
    run release invalidate r5
    join d e
    instances=("${everyone[@]}")
    expect r3 r3 r3 r3 r3

    act "Three of them have the hardware rev2, of which their app is told"
    run device tag a hw=rev1 stage=first
    run device tag b hw=rev1
    local device
    for device in c d e; do
        run device tag "$device" hw=rev2
        run env set --device "$device" DEMO_HARDWARE=rev2
    done
    serving[c]='' serving[d]='' serving[e]=''
    expect_variable rev2 c d e
    expect r3 r3 r3 r3 r3
    settle

    act "Release 6 is rolled out in three waves. It does not run on rev2: there it is halted, and only there"
    run release create demo --file "$work/r6.yml" --commit r6 --draft
    run rollout start demo r6 --waves 'stage=first, hw=rev1, 100%' --soak 1s --observe 1s --segment-by hw
    expect_rollout paused
    sed -n 's/^segment halted */               halted: /p; s/^why */               paused: /p' "$work/out"
    serving=()
    expect r6 r6 r3 r3 r3
    expect_rejected r6 c d e

    act "The rollout is pulled back: a and b go back to 3, too"
    run rollout pull-back demo --reason "rev2 first"
    expect_rollout pulled-back
    expect r3 r3 r3 r3 r3
}

finish() {
    title "All acts went as they should"
    if [ "${KEEP:-}" = 1 ]; then
        trap - EXIT INT TERM HUP
        how_to_look
        return 0
    fi
    trap - EXIT
    event "tidying up"
    tidy_up || miss "something was left behind"
    event "nothing is left: no container, network, volume, image, process or folder of the demo"
}

how_to_look() {
    # With sudo it all belongs to root, so looking needs it too.
    local as=${SUDO_USER:+sudo }
    cat <<END

All is left running. To look:
  ${as}$cotter status --socket $work/a/run/status.sock
  ${as}docker ps --filter label=io.cotter.instance=a
  curl http://$(docker port "$(containers a | cut -d' ' -f1)" 8080/tcp | head -n 1)/
  the fleet server: $url, for example
  ${as}$cotter device list --url $url --token-file $token
  the logs: $work/*.log
To stop, and leave nothing behind:
  make demo-stop
END
}

# A signal: what was begun is tidied up by the exit that follows.
interrupted() {
    say "interrupted"
    exit 130
}

ended() {
    local code=$?
    trap '' INT TERM HUP
    trap - EXIT
    if [ "$code" != 0 ] && [ "$code" != 130 ]; then show_logs; fi
    tidy_up || true
    exit "$code"
}

show_logs() {
    local name
    say ""
    docker ps --all --filter "label=io.cotter.demo=$key" \
        --format 'table {{.Label "io.cotter.instance"}}\t{{.Names}}\t{{.Status}}' >&2 || true
    for name in fleet "${everyone[@]}"; do
        [ -s "$work/$name.log" ] || continue
        say "--- the last lines of $name:"
        tail -n 15 "$work/$name.log" >&2
    done
}

main "$@"
