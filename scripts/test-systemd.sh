#!/usr/bin/env bash
# The agent under a real systemd: `make test-systemd`. As root, on Debian or anything with
# debootstrap and systemd-nspawn; no network beyond Debian's packages is needed.
#
# A minimal Debian is made in .systemd/ (once) and booted in a container that shares this
# machine's network and engine. Into it go the packages, and their units run as they are
# shipped, hardening and all: the fleet server's and the agent's. Each line that is printed was
# checked; the first that does not hold ends it with 1. Whatever happens to the agent, the
# app's container keeps its start time.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
work=$root/.systemd
rootfs=$work/rootfs
built=${CARGO_TARGET_DIR:-$root/target}/debug
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

instances=$(sed -e 's/^Description=Cotter agent:.*/Description=Cotter agent %i: keeps what is its own on this device on the release it should run/' \
    -e 's,/etc/cotter/agent.toml$,/etc/cotter/%i/agent.toml --set instance=%i --set state_dir=/var/lib/cotter-%i --set runtime_dir=/run/cotter-%i,' \
    -e 's,=-/etc/cotter/provisioning.key$,=-/etc/cotter/%i/provisioning.key,' \
    -e 's/^\(State\|Runtime\)Directory=cotter$/&-%i/' -e 's,run-cotter-services,run-cotter\\x2d%i-services,' \
    "$root/systemd/cotter-agent.service")
diff "$root/systemd/cotter-agent@.service" - <<<"$instances" >&2 || die "cotter-agent@.service is not as cotter-agent.service: the lines above"

"$root/scripts/prepare.sh"
command -v debootstrap >/dev/null || apt_install "to make a small Debian" debootstrap
command -v systemd-nspawn >/dev/null || apt_install "to boot it" systemd-container
command -v nsenter >/dev/null || apt_install "to look into it" util-linux
# As `cargo test` builds it: other features of the dependencies would mean to build all of them again.
(cd "$root" && cargo test --locked --no-run --quiet)
choose_docker
registry=$("$root/scripts/test-parts.sh" | sed -n 's/^image \(r[12]\|exit\) /\1 /p')
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
# What a run that was cut has left.
chroot "$rootfs" dpkg --purge cotter cotter-fleet >/dev/null 2>&1 || true
rm -rf "$rootfs"/etc/cotter "$rootfs"/var/lib/cotter* "$rootfs"/var/lib/private/cotter* \
    "$rootfs"/etc/systemd/system/cotter-* "$rootfs"/etc/credstore/cotter.* "$rootfs"/var/log/journal "$rootfs"/root/bundle.tar
# The engine is this machine's, so what it mounts must have the same path here and there. What the mount unit would
# make is made here, as the unit says, because the engine would not see it.
mkdir -p /run/cotter/services
mount -t tmpfs -o "$(sed -n 's/^Options=//p' "$root/systemd/run-cotter-services.mount")" tmpfs /run/cotter/services

init=
inside() { nsenter -t "$init" -m -p -i -u -- "$@"; }
unit() { inside systemctl show -P "$1" cotter-agent.service; }
tidy() {
    trap - EXIT
    [ -z "$init" ] || kill -RTMIN+4 "$init" 2>/dev/null || true
    [ -z "${nspawn:-}" ] || wait "$nspawn" 2>/dev/null || true
    local ids kind all
    for kind in container network volume; do
        all=()
        [ "$kind" != container ] || all=(--all)
        mapfile -t ids < <(docker "$kind" ls --quiet --filter "$app_filter" "${all[@]}")
        [ "${#ids[@]}" = 0 ] || docker "$kind" rm --force "${ids[@]}" >/dev/null 2>&1 ||
            docker "$kind" rm "${ids[@]}" >/dev/null 2>&1 || true
    done
    umount /run/cotter/services
    rm -rf /run/cotter
    "$root/scripts/test-parts.sh" stop
}
trap tidy EXIT
trap 'exit 130' INT TERM

# Two versions of the packages. Stripped and not compressed: it is not their size that is tried here.
arch=$(dpkg --print-architecture)
for name in cotter cotter-fleet; do
    strip -o "$work/$name" "$built/$name"
    for version in 1.0.0 1.0.1; do
        DEB_COMPRESSION=none "$root/scripts/deb.sh" --of "$name" "$work/$name" "$version" "$arch" "$rootfs/root" >/dev/null
    done
done
# `install_version VERSION PACKAGE...`
install_version() {
    local version=$1
    shift
    inside env DEBIAN_FRONTEND=noninteractive dpkg --install "${@/%/_${version}_$arch.deb}" 2>&1
}
# What the one package of both had until version 0.2.0, as far as the two get in each other's way. The server's
# settings were changed by their owner.
single=$work/single
rm -rf "$single"
mkdir -p "$single/DEBIAN"
install -D -m 644 -t "$single/usr/lib/systemd/system" "$root/systemd/cotter-fleet.service"
install -D -m 644 -t "$single/etc/cotter" "$root/config/fleet.toml"
printf '%s\n' /etc/cotter/fleet.toml >"$single/DEBIAN/conffiles"
printf '%s\n' 'Package: cotter' 'Version: 0.1.0' "Architecture: $arch" 'Maintainer: test' 'Description: both' >"$single/DEBIAN/control"
dpkg-deb --root-owner-group -Znone --build "$single" "$rootfs/root/cotter_0.1.0_$arch.deb" >/dev/null

# --- boot, and the package ---------------------------------------------------------------

systemd-nspawn --quiet --directory="$rootfs" --boot --register=no --keep-unit \
    --bind="$COTTER_ENGINE_SOCKET:/run/engine.sock" --bind=/run/cotter </dev/null >"$work/console.log" 2>&1 &
nspawn=$!
has_booted() {
    init=$(pgrep -P "$nspawn" -x systemd) && [ -n "$init" ] &&
        inside systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded'
}
until_true 30 "the system boots" has_booted
init=$(pgrep -P "$nspawn" -x systemd)
told=$(install_version 0.1.0 /root/cotter) || miss "the package of both cannot be installed: $told"
echo '# a line of the owner' >>"$rootfs/etc/cotter/fleet.toml"
! told=$(install_version 1.0.0 /root/cotter-fleet) || miss "the fleet server goes beside the package that has it: $told"
told=$(install_version 1.0.0 /root/cotter /root/cotter-fleet) || miss "the packages cannot be installed: $told"
grep -q 'a line of the owner' "$rootfs/etc/cotter/fleet.toml" || miss "the split replaced the settings of the server's owner"
owner=$(inside dpkg --search /etc/cotter/fleet.toml /usr/lib/systemd/system/cotter-fleet.service | sed 's/:.*//' | sort -u)
[ "$owner" = cotter-fleet ] || miss "the server's files belong to $owner"
inside dpkg --purge cotter cotter-fleet >/dev/null 2>&1 || miss "the packages cannot be purged"
said "the package of both becomes two, and the settings of the server stay"
told=$(install_version 1.0.0 /root/cotter /root/cotter-fleet) || miss "the packages cannot be installed: $told"
grep -q 'set its cloud in /etc/cotter/agent.toml' <<<"$told" || miss "the package does not tell what to do: $told"
inside systemctl is-enabled --quiet cotter-agent.service || miss "the agent is not enabled"
[ "$(unit ActiveState)" = inactive ] || miss "an agent that knows no cloud was started"
! inside systemctl is-enabled --quiet cotter-fleet.service 2>/dev/null || miss "the fleet server is enabled"
inside getent group cotter >/dev/null || miss "there is no group cotter"
gzip -dc "$rootfs/usr/share/man/man1/cotter-status.1.gz" | grep -q 'cotter status' || miss "there is no page of the manual"
gzip -dc "$rootfs/usr/share/man/man8/cotter-fleet.8.gz" | grep -q 'serve' || miss "there is no page of the fleet server"
said "installed: the agent is enabled and, without a cloud, not started"
inside systemctl is-enabled --quiet run-cotter-services.mount || miss "the lock folders have no file system at the next boot"
units=(cotter-agent.service cotter-agent@.service cotter-fleet.service cotter-agent.socket cotter-agent-control.socket run-cotter-services.mount)
complaints=$(inside systemd-analyze verify --man=no "${units[@]/#//usr/lib/systemd/system/}" 2>&1 || echo "it ends with $?")
[ -z "$complaints" ] || miss "systemd-analyze verify: $complaints"
secure() {
    local score
    score=$(inside systemd-analyze security --no-pager "$1" | sed -n 's/.*exposure level for [^:]*: \([0-9.]*\).*/\1/p')
    awk -v s="$score" 'BEGIN { exit !(s != "" && s <= 2.0) }' || miss "systemd-analyze security says $score of $1"
    said "systemd-analyze security: $1 $score, 2.0 at most"
}

# --- the file system of the lock folders, made for another agent as docs/systemd.md says ----------

recipe=$(sed -n 's/^    \(sed .*run-cotter-services.mount.*\)/\1/p' "$root/docs/systemd.md")
[ -n "$recipe" ] || miss "docs/systemd.md does not say how another agent gets a file system"
inside sh -c "${recipe//NAME/lab}" || miss "it cannot be made: $recipe"
inside systemctl daemon-reload
lab_mount='run-cotter\x2dlab-services.mount'
inside systemctl start "$lab_mount" || miss "the file system cannot be mounted"
mounted=$(inside findmnt --noheadings --output FSTYPE,OPTIONS /run/cotter-lab/services) || miss "it is not mounted"
for option in tmpfs nosuid nodev noexec size=4096k nr_inodes=2048 mode=700; do
    grep -q "$option" <<<"$mounted" || miss "its file system has no $option: $mounted"
done
inside systemctl stop "$lab_mount"
inside mkdir -p /run/cotter-lab/services/7/web
inside systemctl start "$lab_mount"
! inside mountpoint -q /run/cotter-lab/services || miss "it was mounted over folders that are in use"
inside rm -r /run/cotter-lab "/etc/systemd/system/$lab_mount"
inside systemctl daemon-reload
said "the lock folders have a file system of 4 MiB, and none is mounted over those in use"

# --- a fleet, and a device of it ----------------------------------------------------------

port=$((20000 + RANDOM % 10000))
while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((20000 + RANDOM % 10000)); done
url=http://127.0.0.1:$port
drop_in() { mkdir -p "$rootfs/etc/systemd/system/$1.d" && printf '%s\n' "${@:2}" >"$rootfs/etc/systemd/system/$1.d/test.conf"; }
drop_in cotter-fleet.service '[Service]' "Environment=COTTER_FLEET_LISTEN=127.0.0.1:$port" Environment=COTTER_FLEET_POLL_INTERVAL=1s
inside systemctl daemon-reload
inside systemctl start cotter-fleet.service || miss "the fleet server does not start"
secure cotter-fleet.service
cli() { inside env "COTTER_FLEET_URL=$url" cotter "$@"; }
created=$(cli fleet create lab --json)
value() { tr -d ' \n' | grep -o "\"$1\":[^,}]*" | head -n 1 | sed 's/.*://;s/"//g'; }
said "the fleet server's unit serves"
mkdir -p "$rootfs/etc/credstore"
(umask 077 && value provisioning_key <<<"$created" >"$rootfs/etc/credstore/cotter.provisioning-key")
cat >"$rootfs/etc/cotter/agent.d/device.toml" <<END
instance = "$instance"
[engine]
socket = "/run/engine.sock"
[cloud]
endpoint = "$url"
fleet = $(value number <<<"$created")
provisioning_key_file = "\$CREDENTIALS_DIRECTORY/cotter.provisioning-key"
poll_interval = "1s"
[update]
soak = "1s"
END
release() {
    printf 'services:\n  web:\n    image: %s\n    ports: ["127.0.0.1::8080"]\n    volumes: ["data:/data"]\nvolumes: { data: {} }\n' \
        "$(image "$2")" >"$rootfs/root/$1.yml"
    cli release create lab --file "/root/$1.yml" --commit "$1" >/dev/null
}
release one r1

# --- start --------------------------------------------------------------------------------

inside systemctl start cotter-agent.service || miss "the unit does not start"
[ "$(unit ActiveState)" = active ] || miss "the unit is $(unit ActiveState)"
said "READY: the unit is active, in systemd's eyes, and has its key as a credential"

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
secure cotter-agent.service
as_member() { inside setpriv --reuid 65534 --regid 65534 --groups "$1" "${@:2}"; }
as_member cotter cotter status >/dev/null || miss "a member of group cotter may not read the status"
! as_member 65534 cotter status >/dev/null 2>&1 || miss "everybody may read the status"
! as_member cotter cotter hold --reason test >/dev/null 2>&1 || miss "a member of group cotter may give orders"
said "the status is for group cotter, orders are for root"
inside cotter config check >/dev/null || miss "cotter config check does not find the credential"
checked=$(inside cotter check --json) || true
found() { sed -n '/"id": /{s/.*: "\(.*\)".*/\1/;h};/"level": "'"$1"'"/{x;p;x}' <<<"$checked" | tr '\n' ' '; }
[ -n "$(found ok)" ] || miss "cotter check says nothing: $checked"
[ -z "$(found error)" ] || miss "cotter check has errors under the unit: $(found error): $checked"
grep -qw state-key <<<"$(found warning)" || miss "cotter check does not tell of the key that is left as a credential: $checked"
inside journalctl --no-pager -u cotter-agent.service | grep -q 'the provisioning key cannot be removed' || miss "the agent does not tell of the key that is left"
said "cotter check: $(found ok | wc -w) ok, no error, warnings: $(found warning)"
inside cotter support-bundle --output /root/bundle.tar >/dev/null || miss "cotter support-bundle does not write"
[ "$(stat -c %a "$rootfs/root/bundle.tar")" = 600 ] || miss "others may read the bundle"
bundled=$(tar --list --file "$rootfs/root/bundle.tar") || miss "the bundle is no tar"
for page in checks.json status.json explain.json journal.jsonl; do grep -q "/$page$" <<<"$bundled" || miss "the bundle has no $page: $bundled"; done
! grep -qF "$(cat "$rootfs/etc/credstore/cotter.provisioning-key")" "$rootfs/root/bundle.tar" || miss "the bundle has the provisioning key"
said "cotter support-bundle: $(awk -F/ '{ printf "%s ", $NF }' <<<"$bundled")"

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

room() { awk '$1 == "tmpfs" && $2 == "/run/cotter/services"' /proc/self/mounts | wc -l; }
[ "$(room)" = 1 ] || miss "the lock folders have no file system of their own"
inside cotter check --json >"$work/check.json" || true
grep -A 2 '"id": "agent-lock-space"' "$work/check.json" | grep -q '"level": "ok"' ||
    grep -B 2 '"id": "agent-lock-space"' "$work/check.json" | grep -q '"level": "ok"' ||
    miss "cotter check does not find their file system: $(cat "$work/check.json")"
head -c 8M /dev/zero >"$work/big"
! docker cp "$work/big" "$(containers):/tmp/balena/big" 2>/dev/null || miss "8 MiB fit into a lock folder"
is_empty() { [ -z "$(ls -A /run/cotter/services/*/web)" ]; }
until_true 60 "a folder that holds too much is emptied" is_empty
inside journalctl --no-pager -u cotter-agent.service | grep -q 'lock folder held too much' || miss "the journal does not tell of it"
unchanged "a full lock folder"
said "an app cannot fill the memory by its lock folder, and what it puts there is taken away"

# --- what happens to an agent ------------------------------------------------------------------

drop_in cotter-agent.service '[Service]' WatchdogSec=6
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
said "an agent that is killed comes back, to the sockets that it left"
pid=$(unit MainPID)
printf '[log]\nlevel = "debug"\n' >"$rootfs/etc/cotter/agent.d/log.toml"
inside systemctl reload cotter-agent.service || miss "it cannot be reloaded"
until_true 20 "a reloaded agent comes back" is_new
is_verbose() { inside journalctl --no-pager -o json -p 6..7 "_PID=$(unit MainPID)" | grep -q '"PRIORITY":"6"'; }
until_true 10 "a reloaded agent has its new settings" is_verbose
pid=$(unit MainPID)
printf '[log]\nlevel = "loud"\n' >"$rootfs/etc/cotter/agent.d/log.toml"
inside systemctl reload cotter-agent.service || miss "it cannot be reloaded"
is_told() { inside journalctl --no-pager -o json -u cotter-agent.service "_PID=$pid" | grep -q 'settings are wrong'; }
until_true 10 "wrong settings are told" is_told
[ "$(unit MainPID) $(unit ActiveState)" = "$pid active" ] || miss "wrong settings ended the agent"
rm "$rootfs/etc/cotter/agent.d/log.toml"
unchanged "a reload"
said "a reload takes new settings, and wrong ones change nothing"
stopped=$SECONDS
inside systemctl stop cotter-agent.service
((SECONDS - stopped < 20)) || miss "it took $((SECONDS - stopped)) s to stop"
[ "$(unit Result)" = success ] || miss "it stopped with $(unit Result)"
unchanged "a stop"
[ -d "/run/cotter/services" ] || miss "the lock folders of running containers went with the agent"
said "it stops in time, and the lock folders of what runs stay"
inside systemctl start cotter-agent.socket cotter-agent-control.socket
[ "$(unit ActiveState)" = inactive ] || miss "the sockets started the agent before anybody asked"
until_true 10 "who asks starts the agent" accepted two
[ "$(unit ActiveState)" = active ] || miss "somebody else answered"
inside cotter hold --reason test >/dev/null || miss "the control socket of systemd is not answered"
inside cotter unhold >/dev/null
as_member cotter cotter status >/dev/null || miss "systemd's socket is not for group cotter"
inside systemctl stop cotter-agent.socket cotter-agent-control.socket cotter-agent.service
unchanged "socket activation"
said "sockets of systemd start the agent when somebody asks"
inside systemctl start cotter-agent.service
until_true 10 "the agent makes its own sockets again" accepted two

# --- the provisioning key, in the one file of /etc that the unit may write -------------------------

rm "$rootfs/etc/credstore/cotter.provisioning-key"
inside systemctl restart cotter-agent.service
until_true 10 "a registered device starts without its credential" accepted two
key=$rootfs/etc/cotter/provisioning.key
(umask 077 && value provisioning_key <<<"$created" >"$key")
sed -i 's,^provisioning_key_file = .*,provisioning_key_file = "/etc/cotter/provisioning.key",' "$rootfs/etc/cotter/agent.d/device.toml"
inside systemctl restart cotter-agent.service
is_emptied() { [ -e "$key" ] && [ ! -s "$key" ]; }
until_true 20 "the key is made empty" is_emptied
checked=$(inside cotter check --json) || true
grep -qw state-key <<<"$(found ok)" || miss "cotter check does not see that the key is gone: $checked"
unchanged "a key that goes"
said "a provisioning key in /etc/cotter is made empty once the device is registered"

# --- a second agent beside it ----------------------------------------------------------------

other=$instance-b
mkdir -p "$rootfs/etc/cotter/$other"
printf '[engine]\nsocket = "/run/engine.sock"\n' >"$rootfs/etc/cotter/$other/agent.toml"
inside systemctl start "cotter-agent@$other.service" || miss "an instance does not start"
inside cotter status --json --socket "/run/cotter-$other/status.sock" | grep -q '"apps": \[\]' || miss "an instance sees apps of others"
[ -d "$rootfs/var/lib/cotter-$other" ] || miss "an instance has no folder of its own"
secure "cotter-agent@$other.service"
inside systemctl stop "cotter-agent@$other.service"
unchanged "an instance beside it"
said "an instance of cotter-agent@.service runs beside it"

# --- upgrade --------------------------------------------------------------------------------

echo '# a line of the owner' >>"$rootfs/etc/cotter/agent.toml"
pid=$(unit MainPID)
told=$(install_version 1.0.1 /root/cotter /root/cotter-fleet) || miss "the packages cannot be upgraded: $told"
until_true 20 "the upgrade starts the agent again" is_new
until_true 20 "the fleet server is there again" accepted two
unchanged "an upgrade"
grep -q 'a line of the owner' "$rootfs/etc/cotter/agent.toml" || miss "the upgrade replaced the owner's settings"
said "an upgrade starts the agent again and touches no app, and the owner's settings stay"

# --- the journal ------------------------------------------------------------------------------

# `lines CURSOR NAME=VALUE...`: entries of the agent after a cursor, as JSON, one a line. journalctl's own
# matches would leave out the first entry after a cursor that they do not match.
lines() {
    local found word
    found=$(inside journalctl --no-pager -o json -u cotter-agent.service --after-cursor "$1" | grep '"_COMM":"cotter"' || true)
    for word in "${@:2}"; do found=$(grep -F "\"${word%%=*}\":\"${word#*=}\"" <<<"$found" || true); done
    [ -z "$found" ] || printf '%s\n' "$found"
}
cursor() { inside journalctl --no-pager -n 1 --show-cursor -u cotter-agent.service | sed -n 's/^-- cursor: //p'; }
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" | sort -u | tr '\n' ' '; }
alone() { [ "$(docker ps --all --quiet --filter "$app_filter" | wc -l)" = 1 ]; }
mark=$(cursor)
release three r1
until_true 30 "release three is accepted" accepted three
until_true 10 "the one before it is removed" alone
written=$(lines "$mark")
count=$(wc -l <<<"$written")
((count <= 14)) || miss "an update of one service is $count lines: $(field MESSAGE <<<"$written")"
[ "$(field COTTER_SERVICE <<<"$written")" = "web " ] || miss "COTTER_SERVICE is not there: $written"
[ "$(lines "$mark" COTTER_STEP=start | field COTTER_RELEASE)" = "three " ] || miss "COTTER_RELEASE is not there: $written"
[ "$(lines "$mark" MESSAGE_ID=9d146db3d8604572821db671adfff0b2 | field COTTER_RELEASE)" = "three " ] || miss "there is no MESSAGE_ID of the update: $written"
grep -q '"COTTER_APP":"[0-9a-f]*"' <<<"$written" || miss "COTTER_APP is not there: $written"
said "the journal has $count lines of an update, with COTTER_APP, _SERVICE, _RELEASE and _STEP"
mark=$(cursor)
sleep 5
count=$(lines "$mark" | wc -l)
[ "$count" = 0 ] || miss "five polls without news write $count lines"
said "five polls without news write nothing"
says() { [ -n "$(lines "$mark" "COTTER_ALERT=$1" "${@:2}")" ]; }
release bad exit
until_true 60 "a bad release is told" says rejected COTTER_REASON=rejected COTTER_RELEASE=bad
until_true 30 "and the way back" says rolled_back COTTER_RELEASE=three
serves r1 || miss "release three is not back"
shown=$(inside journalctl --no-pager -x -o short -u cotter-agent.service MESSAGE_ID=d7486aa294c347a4a7fd80e39f214d53)
grep -q 'cotter retry' <<<"$shown" || miss "the catalog has nothing of a rejection: $shown"
said "a release that is taken back: $(lines "$mark" COTTER_ALERT=rejected | field COTTER_WHY)"
before=$(standing)

# --- the end ----------------------------------------------------------------------------------

printf '[update]\nsoak = "soon"\n' >"$rootfs/etc/cotter/agent.d/wrong.toml"
! inside systemctl restart cotter-agent.service 2>/dev/null || miss "wrong settings start"
sleep 3
[ "$(unit ExecMainStatus)" = 78 ] || miss "wrong settings end with $(unit ExecMainStatus)"
[ "$(unit ActiveState)" = failed ] || miss "wrong settings are tried again: $(unit ActiveState)"
unchanged "wrong settings"
said "wrong settings end with 78 and are not tried again"
rm "$rootfs/etc/cotter/agent.d/wrong.toml"
inside systemctl start cotter-agent.service
told=$(inside dpkg --remove cotter 2>&1) || miss "the package cannot be removed: $told"
unchanged "the package's removal"
[ -d "$rootfs/var/lib/cotter" ] || miss "a removal without purge took the agent's memory"
told=$(inside dpkg --purge cotter 2>&1) || miss "the package cannot be purged: $told"
unchanged "the package's purge"
for gone in var/lib/cotter etc/cotter/agent.toml usr/bin/cotter; do
    [ ! -e "$rootfs/$gone" ] || miss "a purge left /$gone"
done
[ -e "$rootfs/etc/cotter/fleet.toml" ] || miss "the agent's purge took the settings of the server"
inside systemctl is-active --quiet cotter-fleet.service || miss "the agent's purge ended the server"
[ "$(docker volume ls --quiet --filter "$app_filter" | wc -l)" = 1 ] || miss "a purge took a volume"
grep -q 'volumes of the apps stay' <<<"$told" || miss "a purge does not tell what stays: $told"
purged=$(inside dpkg --purge cotter-fleet 2>&1) || miss "the fleet server cannot be purged: $purged"
grep -q 'records of the fleet server stay' <<<"$purged" || miss "its purge does not tell what stays: $purged"
for gone in etc/cotter/fleet.toml usr/bin/cotter-fleet; do
    [ ! -e "$rootfs/$gone" ] || miss "the server's purge left /$gone"
done
said "removed and purged: the app runs on, its volume is there, the agent's memory is gone"
