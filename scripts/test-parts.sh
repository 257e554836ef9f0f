#!/usr/bin/env bash
# The real parts that tests need: an engine, a registry, releases of the demo app in it.
#
#   scripts/test-parts.sh         make sure of them; prints what tests/support reads
#   scripts/test-parts.sh stop    remove all that this clone's tests left, stop the registry
#
# It prints lines of two or three words: `engine SOCKET`, `docker CLIENT`, `registry ADDRESS`,
# `label VALUE` (what the images bear as io.cotter.demo), and `image RELEASE REFERENCE` each.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
root=$(cd "$here/.." && pwd)
work=$root/.registry
label=tests-$(printf '%s' "$root" | cksum | cut -d' ' -f1)
releases=(r1 r2 r3 r4
    "crash,DEMO_BEHAVIOUR=crash,DEMO_DELAY=1"
    "exit,DEMO_BEHAVIOUR=exit"
    "unhealthy,DEMO_BEHAVIOUR=unhealthy"
    "slow,DEMO_BEHAVIOUR=slow,DEMO_DELAY=3")

# Containers, networks, volumes and images of tests that could not tidy up themselves.
remove_remains() {
    local instance kind ids
    while read -r instance; do
        for kind in container network volume; do
            mapfile -t ids < <(
                if [ "$kind" = container ]; then
                    docker ps --all --quiet --filter "label=io.cotter.instance=$instance"
                else
                    docker "$kind" ls --quiet --filter "label=io.cotter.instance=$instance"
                fi
            )
            [ "${#ids[@]}" = 0 ] || docker "$kind" rm --force "${ids[@]}" >/dev/null 2>&1 ||
                docker "$kind" rm "${ids[@]}" >/dev/null 2>&1 || true
        done
    done < <(docker ps --all --filter "label=io.cotter.demo=$label" --format '{{.Label "io.cotter.instance"}}' |
        sort -u | sed '/^$/d')
    mapfile -t ids < <(docker ps --all --quiet --filter "label=io.cotter.demo=$label")
    [ "${#ids[@]}" = 0 ] || docker rm --force "${ids[@]}" >/dev/null 2>&1 || true
    mapfile -t ids < <(docker images --all --quiet --no-trunc --filter "label=io.cotter.demo=$label" | sort -u)
    [ "${#ids[@]}" = 0 ] || docker rmi --force "${ids[@]}" >/dev/null 2>&1 || true
}

if [ "${1:-}" = stop ]; then
    if engine_answers; then
        choose_docker
        remove_remains
    fi
    if [ -d "$work" ]; then "$here/ensure-registry.sh" "$work" stop; fi
    rm -rf "$work"
    exit 0
fi

"$here/ensure-engine.sh"
engine_answers ||
    die "this user may not use $COTTER_ENGINE_SOCKET: run the tests as root, by \`make test\` with sudo, or join the group docker"
choose_docker
mkdir -p "$work"

# Test processes ask at the same time: one builds, the others find it done.
exec 9>"$work/parts.lock"
flock -w 300 9 || die "another process has held $work/parts.lock for 5 minutes"
registry=$("$here/ensure-registry.sh" "$work" 9>&-)
made_of=$(cat "$root/demo/app/main.rs" "$root/demo/app/Dockerfile" "$here/build-demo-images.sh" | cksum)
stamp="$registry $label $made_of ${releases[*]}"
if [ "$(cat "$work/stamp" 2>/dev/null || true)" != "$stamp" ]; then
    "$here/build-demo-images.sh" "$registry" "$label" "${releases[@]}" >"$work/images"
    echo "$stamp" >"$work/stamp"
fi
echo "engine $COTTER_ENGINE_SOCKET"
echo "docker $DOCKER"
echo "registry $registry"
echo "label $label"
sed 's/^/image /' "$work/images"
