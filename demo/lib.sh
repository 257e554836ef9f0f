# shellcheck shell=bash
# What the demo needs besides its story: its processes, its checks, its tidying up.
# Sourced by demo/run.sh.
# shellcheck disable=SC2154  # root, work, key, cotter, everyone, instances and quiet are demo/run.sh's

# Shown times count from here.
begun=$EPOCHREALTIME

# Seconds since $1 (a former $EPOCHREALTIME), with one digit.
since() {
    local us=$((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}))
    printf '%d.%d' $((us / 1000000)) $((us / 100000 % 10))
}

event() { printf '[%6s s]   %s\n' "$(since "$begun")" "$*"; }
title() { printf '\n[%6s s] %s%s%s\n' "$(since "$begun")" "${bold:-}" "$*" "${plain:-}"; }
miss() {
    printf '[%6s s] %sMISS: %s%s\n' "$(since "$begun")" "${bold:-}" "$*" "${plain:-}" >&2
    exit 1
}

# The value of key $1 in the JSON on stdin: a text or a number.
json() {
    tr -d '\n' | { grep -o "\"$1\"[[:space:]]*:[[:space:]]*\(\"[^\"]*\"\|[0-9a-z.-]*\)" || true; } |
        sed -n '1{s/^[^:]*:[[:space:]]*//;s/"//g;p}'
}

# --- processes -----------------------------------------------------------------------

# `start NAME PROGRAM ARGS...`: starts it apart from this shell; its output is $work/NAME.log.
start() {
    local name=$1 program=$2
    shift 2
    start_process "$work/$name.pid" "$work/$name.log" "$work/" "$program" "$@" ||
        miss "\`${program##*/} $*\` ended at once: $(tail -n 1 "$work/$name.log")"
}

runs() { is_process "$(cat "$work/$1.pid" 2>/dev/null || true)" "$work/"; }

# The address of the fleet server, as it tells it once it listens.
fleet_url() {
    local end=$((SECONDS + 10)) url
    while ((SECONDS < end)); do
        url=$(grep -o 'http://127\.0\.0\.1:[0-9]*' "$work/fleet.log" 2>/dev/null | head -n 1 || true)
        if [ -n "$url" ] && [ -s "$token" ]; then
            echo "$url"
            return 0
        fi
        runs fleet || break
        sleep 0.05
    done
    miss "the fleet server does not start: $(tail -n 1 "$work/fleet.log" 2>/dev/null)"
}

# An operator's command.
cli() { COTTER_FLEET_URL=$url COTTER_TOKEN_FILE=$token "$cotter" "$@"; }

# --- the devices -----------------------------------------------------------------

# One line per running container of device $1, found by the instance's label alone:
# its id, the release in its labels, its start time, its restart count.
containers() {
    local ids
    ids=$(docker ps --quiet --no-trunc --filter "label=io.cotter.instance=$1" --filter status=running)
    [ -n "$ids" ] || return 0
    # shellcheck disable=SC2086  # ids are words
    docker inspect --format \
        '{{.Id}} {{index .Config.Labels "io.cotter.release"}} {{.State.StartedAt}} {{.RestartCount}}' $ids 2>/dev/null || true
}

# What container $1 says over HTTP, asked at the port that the engine chose for it.
ask() {
    local address
    address=$(docker port "$1" 8080/tcp 2>/dev/null | head -n 1) || return 0
    [ -z "$address" ] || curl -fsS --max-time 2 "http://$address/" 2>/dev/null || true
}

# Whether device $1 serves release $2 and nothing else. Says what it found in `found`.
serves() {
    local device=$1 release=$2 id commit said
    mapfile -t lines < <(containers "$device")
    if [ "${#lines[@]}" != 1 ]; then
        found="${#lines[@]} containers run"
        return 1
    fi
    read -r id commit _ <<<"${lines[0]}"
    said=$(ask "$id" | json release)
    found="docker ps says ${commit:-nothing}, HTTP says ${said:-nothing}"
    [ "$commit" = "$release" ] && [ "$said" = "$release" ]
}

# `expect RELEASE_OF_A RELEASE_OF_B RELEASE_OF_C...`: who has to move does so within 30 s, and
# who serves the right release already keeps the very same container, not restarted. When
# nobody has to move, nobody does over $quiet polls.
declare -A serving=() standing=()
expect() {
    local device release end moving=() i=0
    for device in "${instances[@]}"; do
        release=${*:i+1:1}
        i=$((i + 1))
        if [ "${serving[$device]:-}" != "$release" ]; then moving+=("$device"); fi
        serving[$device]=$release
    done
    if [ "${#moving[@]}" = 0 ]; then
        watch_polls
    fi
    end=$((SECONDS + 30))
    local waiting=("${moving[@]}") still
    while [ "${#waiting[@]}" != 0 ]; do
        still=()
        for device in "${waiting[@]}"; do
            if serves "$device" "${serving[$device]}"; then
                event "$device serves ${serving[$device]}, $(since "$act_begun") s after the act"
            elif ((SECONDS >= end)); then
                miss "$device does not serve ${serving[$device]} after 30 s: $found"
            else
                still+=("$device")
            fi
        done
        waiting=("${still[@]}")
        [ "${#waiting[@]}" = 0 ] || sleep 0.2
    done
    local rest=()
    for device in "${instances[@]}"; do
        [[ " ${moving[*]} " == *" $device "* ]] || rest+=("$device")
    done
    stand_still "${rest[@]}"
    local all=()
    for device in "${instances[@]}"; do
        serves "$device" "${serving[$device]}" || miss "$device should serve ${serving[$device]}: $found"
        standing[$device]=$(containers "$device")
        all+=("$device=${serving[$device]}")
    done
    event "checked by HTTP and by docker ps: ${all[*]}${rest[*]:+ (${rest[*]} not touched)}"
}

# Waits until every device has accepted what it serves: until then it has nothing to go back to.
settle() {
    local device end=$((SECONDS + 30))
    for device in "${instances[@]}"; do
        until cli status --socket "$work/$device/run/status.sock" --json | grep -q '"update": "done"'; do
            ((SECONDS < end)) || miss "$device has not accepted ${serving[$device]} after 30 s"
            sleep 0.2
        done
    done
}

# Waits until every device, or each of those that are named, says that it has tried release $1 and taken it back, and why.
expect_rejected() {
    local release=$1 device why end=$((SECONDS + 30))
    shift
    [ $# != 0 ] || set -- "${instances[@]}"
    for device in "$@"; do
        while :; do
            why=$(cli status --socket "$work/$device/run/status.sock" --json |
                grep -o "release $release was rejected: [^\"]*" || true)
            [ -z "$why" ] || break
            ((SECONDS < end)) || miss "$device does not say that $release is rejected after 30 s"
            sleep 0.2
        done
        event "$device: $why"
    done
}

# Waits until the rollout of the fleet is $1. Leaves what `cotter rollout show` prints in $work/out.
expect_rollout() {
    local end=$((SECONDS + 60)) phase
    while :; do
        phase=$(cli rollout show demo --json | json phase)
        [ "$phase" != "$1" ] || break
        ((SECONDS < end)) || miss "the rollout is $phase, and not $1, after 60 s"
        sleep 0.2
    done
    cli rollout show demo >"$work/out"
    event "the rollout is $1, $(since "$act_begun") s after the act"
}

# Waits until the app of each of the devices ${*:2} is told that its hardware is $1.
expect_variable() {
    local hardware=$1 device id end=$((SECONDS + 30))
    shift
    for device in "$@"; do
        while :; do
            id=$(containers "$device" | cut -d' ' -f1 | head -n 1)
            if [ -n "$id" ] && docker inspect --format '{{join .Config.Env " "}}' "$id" | grep -q "DEMO_HARDWARE=$hardware"; then break; fi
            ((SECONDS < end)) || miss "the app of $device does not have its variable after 30 s"
            sleep 0.2
        done
    done
}

# Watches until every device has polled $quiet times more; nobody may be touched meanwhile.
watch_polls() {
    local device at end=$((SECONDS + 10 + 2 * quiet)) begun_polls=$EPOCHREALTIME all_polled=no
    local -A last=() polls=()
    event "nobody should move: watching until each device has polled $quiet times"
    while [ "$all_polled" = no ]; do
        all_polled=yes
        stand_still "${instances[@]}"
        for device in "${instances[@]}"; do
            at=$(cli device show "$device" --json | json last_seen) || miss "the fleet server does not answer"
            if [ "$at" != "${last[$device]:-$at}" ]; then polls[$device]=$((${polls[$device]:-0} + 1)); fi
            last[$device]=$at
            if [ "${polls[$device]:-0}" -lt "$quiet" ]; then all_polled=no; fi
        done
        ((SECONDS < end)) || miss "a device does not poll: ${instances[*]} polled ${polls[*]:-0} times"
        sleep 0.2
    done
    event "each has polled $quiet times in $(since "$begun_polls") s"
}

stand_still() {
    local device
    for device in "$@"; do
        [ "$(containers "$device")" = "${standing[$device]}" ] ||
            miss "$device was touched; before: ${standing[$device]:-nothing}; now: $(containers "$device")"
    done
}

# --- tidying up ------------------------------------------------------------------------

# The apps of the demo, from its own notes and from its containers.
apps=()
note_apps() {
    mapfile -t apps < <({
        printf '%s\n' "${apps[@]}"
        cat "$work/app" 2>/dev/null || true
        docker ps --all --filter "label=io.cotter.demo=$key" --format '{{.Label "io.cotter.app"}}'
    } | sort -u | sed '/^$/d')
}

# The ids of what the engine has of the demo. $1 is container, network, volume or image.
# Containers and images bear the demo's key, which the image brings; networks and volumes
# bear the app that `note_apps` found.
remains() {
    local app
    case $1 in
    container) docker ps --all --quiet --filter "label=io.cotter.demo=$key" ;;
    image) docker images --all --quiet --no-trunc --filter "label=io.cotter.demo=$key" | sort -u ;;
    network | volume)
        for app in "${apps[@]}"; do
            docker "$1" ls --quiet --filter "label=io.cotter.app=$app"
        done
        ;;
    esac
}

# Removes what of kind $1 is left; tries again while something is still in use.
remove() {
    local ids attempt
    for attempt in 1 2 3; do
        mapfile -t ids < <(remains "$1")
        [ "${#ids[@]}" != 0 ] || return 0
        [ "$attempt" = 1 ] || sleep 0.5
        case $1 in
        container) docker rm --force "${ids[@]}" ;;
        network) docker network rm "${ids[@]}" ;;
        volume) docker volume rm "${ids[@]}" ;;
        image) docker rmi --force "${ids[@]}" ;;
        esac >/dev/null 2>&1 || true
    done
}

# Ends the demo's processes and removes all it left, in whatever state it is.
tidy_up() {
    local name kind left=()
    for name in "${everyone[@]}" fleet; do
        stop_process "$(cat "$work/$name.pid" 2>/dev/null || true)" "$work/" 20
    done
    note_apps
    for kind in container network volume image; do
        remove "$kind"
        [ -z "$(remains "$kind")" ] || left+=("$kind" "$(remains "$kind" | tr '\n' ' ')")
    done
    if [ -d "$work/registry" ]; then "$root/scripts/ensure-registry.sh" "$work/registry" stop; fi
    rm -rf "$work"
    if [ "${#left[@]}" != 0 ]; then
        say "could not remove: ${left[*]}"
        return 1
    fi
}
