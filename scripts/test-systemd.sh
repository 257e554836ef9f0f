#!/usr/bin/env bash
# The agent under a real systemd: `make test-systemd`. As root, on Debian or anything with
# debootstrap and systemd-nspawn; no network beyond Debian's packages is needed.
#
# A minimal Debian is made in .systemd/ (once) and booted in a container that shares this
# machine's network and engine. In it runs the unit as it is shipped, hardening and all. Each
# line that is printed was checked; the first that does not hold ends it with 1. In every case
# but the last ones the app's container keeps its start time.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
work=$root/.systemd
rootfs=$work/rootfs
cotter=${CARGO_TARGET_DIR:-$root/target}/debug/cotter
instance=systemd-$(printf '%s' "$work" | cksum | cut -d' ' -f1)
app_filter="label=io.cotter.instance=$instance"
begun=$EPOCHREALTIME

is_root || die "a system is booted here: run this as root"
[ ! -e /run/cotter ] || die "/run/cotter is there: an agent of this machine uses it, and the test needs it"
for name in "${!COTTER_@}"; do
    [ "$name" = COTTER_ENGINE_SOCKET ] || unset "$name"
done

said() {
    local us=$((${EPOCHREALTIME/[.,]/} - ${begun/[.,]/}))
    printf '[%3d s] %s\n' $((us / 1000000)) "$*"
}
miss() {
    printf 'MISS: %s\n' "$*" >&2
    inside journalctl --no-pager -n 40 >&2 2>/dev/null || true
    exit 1
}
# `until_true SECONDS WHAT COMMAND...`
until_true() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || miss "$what"
        sleep 0.2
    done
}

"$root/scripts/prepare.sh"
command -v debootstrap >/dev/null || apt_install "to make a small Debian" debootstrap
command -v systemd-nspawn >/dev/null || apt_install "to boot it" systemd-container
command -v nsenter >/dev/null || apt_install "to look into it" util-linux
# As `cargo test` builds it: other features of the dependencies would mean to build all of them again.
(cd "$root" && cargo test --locked --no-run --quiet)
choose_docker
registry=$("$root/scripts/test-parts.sh" | sed -n 's/^image \(r[12]\) /\1 /p')
image() { sed -n "s/^$1 //p" <<<"$registry"; }

# --- the system ------------------------------------------------------------------------

if [ ! -e "$work/made" ]; then
    rm -rf "$rootfs"
    mkdir -p "$work"
    said "making a small Debian, once"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,ca-certificates bookworm "$rootfs" \
        >"$work/debootstrap.log" 2>&1 || {
        say "skipped: no Debian can be made to boot ($(tail -n 1 "$work/debootstrap.log"))"
        exit 0
    }
    touch "$work/made"
fi
rm -rf "$rootfs/etc/cotter" "$rootfs/var/lib/cotter" "$rootfs/etc/systemd/system/cotter-agent.service.d"
install -d -m 755 "$rootfs/etc/cotter"
install -m 755 "$cotter" "$rootfs/usr/bin/cotter"
install -m 644 "$root/systemd/cotter-agent.service" "$rootfs/etc/systemd/system/"
# The engine is this machine's, so what it mounts must have the same path here and there.
mkdir -p /run/cotter

init=
inside() { nsenter -t "$init" -m -p -i -u -- "$@"; }
unit() { inside systemctl show -P "$1" cotter-agent.service; }
tidy() {
    trap - EXIT
    [ -z "$init" ] || kill -RTMIN+4 "$init" 2>/dev/null || true
    [ -z "${nspawn:-}" ] || wait "$nspawn" 2>/dev/null || true
    stop_process "$(cat "$work/fleet.pid" 2>/dev/null || true)" "$work/" 10
    local ids kind
    for kind in container network volume; do
        mapfile -t ids < <(docker "$kind" ls --quiet --filter "$app_filter" \
            $([ "$kind" = container ] && echo --all))
        [ "${#ids[@]}" = 0 ] || docker "$kind" rm --force "${ids[@]}" >/dev/null 2>&1 ||
            docker "$kind" rm "${ids[@]}" >/dev/null 2>&1 || true
    done
    rm -rf /run/cotter "$work/fleet"
    "$root/scripts/test-parts.sh" stop
}
trap tidy EXIT
trap 'exit 130' INT TERM

# --- a fleet, and a device of it ----------------------------------------------------------

rm -rf "$work/fleet" "$work/fleet.log"
start_process "$work/fleet.pid" "$work/fleet.log" "$work/" "$cotter" fleet serve \
    --listen 127.0.0.1:0 --poll-interval 1s --data-dir "$work/fleet" || die "the fleet server does not start"
url=
until_true 10 "the fleet server listens" grep -qo 'http://127\.0\.0\.1:[0-9]*' "$work/fleet.log"
url=$(grep -o 'http://127\.0\.0\.1:[0-9]*' "$work/fleet.log" | head -n 1)
cli() { COTTER_FLEET_URL=$url COTTER_TOKEN_FILE=$work/fleet/operator.token "$cotter" "$@"; }
created=$(cli fleet create lab --json)
value() { tr -d ' \n' | grep -o "\"$1\":[^,}]*" | head -n 1 | sed 's/.*://;s/"//g'; }
(umask 077 && value provisioning_key <<<"$created" >"$rootfs/etc/cotter/provisioning.key")
cat >"$rootfs/etc/cotter/agent.toml" <<END
instance = "$instance"
[engine]
socket = "/run/engine.sock"
[cloud]
endpoint = "$url"
fleet = $(value number <<<"$created")
provisioning_key_file = "/etc/cotter/provisioning.key"
poll_interval = "1s"
[update]
soak = "1s"
END
release() {
    printf 'services:\n  web:\n    image: %s\n    ports: ["127.0.0.1::8080"]\n' "$(image "$2")" >"$work/$1.yml"
    cli release create lab --file "$work/$1.yml" --commit "$1" >/dev/null
}
release one r1

# --- boot ------------------------------------------------------------------------------

systemd-nspawn --quiet --directory="$rootfs" --boot --register=no --keep-unit \
    --bind="$COTTER_ENGINE_SOCKET:/run/engine.sock" --bind=/run/cotter </dev/null >"$work/console.log" 2>&1 &
nspawn=$!
has_booted() {
    init=$(pgrep -P "$nspawn" -x systemd) && [ -n "$init" ] &&
        inside systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded'
}
until_true 30 "the system boots" has_booted
init=$(pgrep -P "$nspawn" -x systemd)
inside systemctl start cotter-agent.service || miss "the unit does not start"
[ "$(unit ActiveState)" = active ] || miss "the unit is $(unit ActiveState)"
said "READY: the unit is active, in systemd's eyes"

containers() { docker ps --quiet --no-trunc --filter "$app_filter" --filter status=running; }
serves() {
    local id address
    id=$(containers) && [ "$(wc -w <<<"$id")" = 1 ] || return 1
    address=$(docker port "$id" 8080/tcp | head -n 1) && [ -n "$address" ] &&
        curl -fsS --max-time 2 "http://$address/" | grep -q "\"release\":\"$1\""
}
standing() { docker inspect --format '{{.Id}} {{.State.StartedAt}}' "$(containers)"; }
accepted() { inside cotter status --json | tr -d ' \n' | grep -q "\"current\":\"$1\",\"update\":\"done\""; }
until_true 30 "release one is served" serves r1
until_true 30 "release one is accepted" accepted one
before=$(standing)
unchanged() { [ "$(standing)" = "$before" ] || miss "$1: the app was touched: $before, now $(standing)"; }
said "a release is pulled, started and accepted under the unit's hardening"
tells_line() { [ "$(unit StatusText)" = "lab runs one" ]; }
until_true 5 "systemd's line tells it" tells_line
said "STATUS: $(unit StatusText)"

score=$(inside systemd-analyze security --no-pager cotter-agent.service | sed -n 's/.*exposure level for [^:]*: \([0-9.]*\).*/\1/p')
awk -v s="$score" 'BEGIN { exit !(s != "" && s <= 2.0) }' || miss "systemd-analyze security says $score"
said "systemd-analyze security: $score, 2.0 at most"

# --- locks, through the hardening and the engine's mount -------------------------------------

web() { curl -fsS --max-time 2 "http://$(docker port "$(containers)" 8080/tcp | head -n 1)$1"; }
web "/make?/tmp/balena/updates.lock" >/dev/null || miss "the app cannot make its lock file"
release two r2
waits() { inside cotter status --json | grep -q "\"$1\""; }
until_true 20 "the lock is told" waits locked
unchanged "while locked"
web "/take?/tmp/balena/updates.lock" >/dev/null
until_true 20 "release two is served" serves r2
until_true 20 "release two is accepted" accepted two
before=$(standing)
said "an app's lock file is seen, and seen to go"

# --- what goes wrong ------------------------------------------------------------------------

mkdir -p "$rootfs/etc/systemd/system/cotter-agent.service.d"
printf '[Service]\nWatchdogSec=6\n' >"$rootfs/etc/systemd/system/cotter-agent.service.d/test.conf"
inside systemctl daemon-reload
inside systemctl restart cotter-agent.service
unchanged "a restart"
said "a restart of the unit restarts nothing"
pid=$(unit MainPID)
inside sh -c "kill -STOP $pid"
is_new() { [ "$(unit MainPID)" != "$pid" ] && [ "$(unit MainPID)" != 0 ] && [ "$(unit ActiveState)" = active ]; }
until_true 20 "the watchdog restarts an agent that hangs" is_new
inside journalctl --no-pager -u cotter-agent.service | grep -q "result 'watchdog'" || miss "it was no watchdog"
unchanged "the watchdog"
said "an agent that hangs is restarted by the watchdog"
pid=$(unit MainPID)
inside sh -c "kill -KILL $pid"
until_true 20 "an agent that is killed comes back" is_new
unchanged "SIGKILL"
said "an agent that is killed comes back"
stopped=$SECONDS
inside systemctl stop cotter-agent.service
((SECONDS - stopped < 20)) || miss "it took $((SECONDS - stopped)) s to stop"
[ "$(unit Result)" = success ] || miss "it stopped with $(unit Result)"
unchanged "a stop"
[ -d "/run/cotter/services" ] || miss "the lock folders of running containers went with the agent"
said "it stops in time, and the lock folders of what runs stay"
inside systemctl start cotter-agent.service
fields=$(inside journalctl --no-pager -o json -u cotter-agent.service COTTER_STEP=commit)
grep -q '"COTTER_APP"' <<<"$fields" || miss "the journal has no fields: $fields"
grep -q '"MESSAGE":"step done"' <<<"$fields" || miss "the journal's message is another: $fields"
said "the journal has COTTER_STEP and COTTER_APP as fields of their own"
printf '[update]\nsoak = "soon"\n' >"$rootfs/etc/cotter/agent.toml"
! inside systemctl restart cotter-agent.service 2>/dev/null || miss "wrong settings start"
sleep 3
[ "$(unit ExecMainStatus)" = 78 ] || miss "wrong settings end with $(unit ExecMainStatus)"
[ "$(unit ActiveState)" = failed ] || miss "wrong settings are tried again: $(unit ActiveState)"
unchanged "wrong settings"
said "wrong settings end with 78 and are not tried again"
