#!/usr/bin/env bash
# Makes sure that an image registry of our own runs, and prints its address.
#
#   scripts/ensure-registry.sh DIR         start it if it does not run; prints 127.0.0.1:PORT
#   scripts/ensure-registry.sh DIR stop    stop it; its images stay in DIR
#
# All it has is in DIR. It has nothing to do with a registry that Debian's package may run as
# a service. The port is free to be any the first time (COTTER_REGISTRY_PORT to say which)
# and stays the same as long as DIR does and nobody else has taken it. The engine speaks
# plain HTTP to a registry on 127.0.0.1 without being told so.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

[ $# -ge 1 ] || die "usage: ensure-registry.sh DIR [stop]"
# Images may hold secrets of whoever tests: no other user of this machine reads them.
umask 077
mkdir -p "$1"
dir=$(cd "$1" && pwd)
chmod 700 "$dir"
config=$dir/registry.yml
pid_file=$dir/registry.pid
address_file=$dir/address
log=$dir/registry.log

pid() { cat "$pid_file" 2>/dev/null || true; }
runs() { is_process "$(pid)" "$config"; }
answers() { curl -fsS --max-time 3 "http://$1/v2/" >/dev/null 2>&1; }

if [ "${2:-}" = stop ]; then
    stop_process "$(pid)" "$config" 10
    rm -f "$pid_file"
    exit 0
fi

command -v curl >/dev/null || apt_install "curl, to ask the registry" curl ca-certificates
command -v docker-registry >/dev/null || apt_install "an image registry" docker-registry

# Several test processes may ask at once: one starts it, the others wait.
exec 9>"$dir/lock"
flock -w 60 9 || die "another process has held $dir/lock for a minute"

if runs && [ -s "$address_file" ] && answers "$(cat "$address_file")"; then
    cat "$address_file"
    exit 0
fi
stop_process "$(pid)" "$config" 5

# Starts it on port $1, 0 for any, and waits until it answers, 15 s at most.
start() {
    # The secret only has to be the same for the whole life of an upload.
    cat >"$config" <<END
version: 0.1
log: { level: info, accesslog: { disabled: true } }
storage:
  filesystem: { rootdirectory: $dir/storage }
  delete: { enabled: true }
http: { addr: 127.0.0.1:$1, secret: loopback-only }
END
    : >"$log"
    start_process "$pid_file" "$log" "$config" docker-registry serve "$config" || return 1
    local end=$((SECONDS + 15)) address
    while ((SECONDS < end)); do
        address=$(sed -n 's/.*listening on \(127\.0\.0\.1:[0-9]*\).*/\1/p' "$log" | tail -n 1)
        if [ -n "$address" ] && answers "$address"; then
            echo "$address" >"$address_file"
            return 0
        fi
        runs || return 1
        sleep 0.05
    done
    return 1
}

wanted=${COTTER_REGISTRY_PORT:-$(sed -n 's/^127\.0\.0\.1:\([0-9]*\)$/\1/p' "$address_file" 2>/dev/null || true)}
if ! start "${wanted:-0}"; then
    stop_process "$(pid)" "$config" 5
    if [ -n "${COTTER_REGISTRY_PORT:-}" ] || ! start 0; then
        die "the registry does not start: $(tail -n 1 "$log" | cut -c1-300)"
    fi
fi
cat "$address_file"
