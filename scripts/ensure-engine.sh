#!/usr/bin/env bash
# Makes sure that a Docker Engine answers on the engine socket. Changes nothing if it does.
#
# Installs Debian's docker.io where no dockerd is, and starts it: by systemd where systemd
# runs, else by itself. A dockerd that was killed leaves pid files and a socket that keep
# the next one from starting; those are cleared here.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

command -v curl >/dev/null || apt_install "curl, to ask the engine" curl ca-certificates
if engine_answers; then
    exit 0
fi

# From here on as root: install, start, or see that it runs and only this user may not use it.
if ! is_root; then
    as_root "the Docker Engine" env COTTER_ENGINE_SOCKET="$COTTER_ENGINE_SOCKET" "$here/ensure-engine.sh"
    exit 0
fi

command -v dockerd >/dev/null || apt_install "the Docker Engine" docker.io iptables ca-certificates
# From Debian 13 on the client is a package of its own.
command -v docker >/dev/null || apt_install "the docker client" docker-cli
# Installing may have started it.
if engine_answers; then
    exit 0
fi

run=${COTTER_ENGINE_RUN:-/var/run/docker}
data=${COTTER_ENGINE_DATA:-/var/lib/docker}
pid_file=${COTTER_ENGINE_PIDFILE:-/var/run/docker.pid}
log=${COTTER_ENGINE_LOG:-/var/log/dockerd.log}

pid_in() { cat "$1" 2>/dev/null || true; }

# Each controller of a version 1 hierarchy needs a mount of its own; an init does that, a bare container does not.
mount_cgroups() {
    [ -e /sys/fs/cgroup/cgroup.controllers ] && return 0
    mountpoint -q /sys/fs/cgroup || mount -t tmpfs cgroup_root /sys/fs/cgroup || return 0
    local controller
    while read -r controller; do
        mkdir -p "/sys/fs/cgroup/$controller" 2>/dev/null || continue
        mountpoint -q "/sys/fs/cgroup/$controller" ||
            mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller" 2>/dev/null || true
    done < <(awk 'NR > 1 && $4 == 1 { print $1 }' /proc/cgroups)
}

clear_remains() {
    stop_process "$(pid_in "$pid_file")" dockerd 15
    stop_process "$(pid_in "$run/containerd/containerd.pid")" containerd 10
    # A stale pid in containerd's file makes dockerd wait 15 s and then give up.
    rm -f "$pid_file" "$COTTER_ENGINE_SOCKET" "$run/containerd/containerd.pid"
}

# Starts dockerd apart from this shell and waits for its answer, 30 s at most.
start_dockerd() {
    local words=()
    read -ra words <<<"${COTTER_ENGINE_ARGS:-}"
    setsid nohup dockerd --data-root "$data" --exec-root "$run" --pidfile "$pid_file" \
        -H "unix://$COTTER_ENGINE_SOCKET" "${words[@]}" "$@" >>"$log" 2>&1 </dev/null &
    local pid=$! end=$((SECONDS + 30))
    until engine_answers; do
        if ! kill -0 "$pid" 2>/dev/null || ((SECONDS >= end)); then
            return 1
        fi
        sleep 0.1
    done
}

if is_systemd; then
    systemctl start docker.service ||
        die "systemd could not start docker.service: see \`journalctl -u docker\`"
    for _ in $(seq 100); do
        engine_answers && break
        sleep 0.3
    done
    engine_answers || die "docker.service runs but does not answer on $COTTER_ENGINE_SOCKET"
else
    mount_cgroups
    clear_remains
    if ! start_dockerd; then
        say "dockerd did not start ($(tail -n 1 "$log" | cut -c1-200)); trying without overlay file system and bridge"
        clear_remains
        start_dockerd --storage-driver=vfs --iptables=false --bridge=none ||
            die "dockerd does not start: $(tail -n 1 "$log" | cut -c1-200) (all of it: $log)"
    fi
fi
say "the Docker Engine runs"
