#!/usr/bin/env bash
# All that `make bench` does: preparations, a release build, and the bench itself
# (benches/budgets), which prints the table of budgets. `--quick` to try the bench only.
#
# The agent that is measured is the one that `make build` makes: beside the bench it would be
# built with what only tests and the fleet server need.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
cd "$root"
work=$root/.bench

scripts/prepare.sh
command -v docker-compose >/dev/null || apt_install "to compare with" docker-compose
engine_answers || die "this user may not use $COTTER_ENGINE_SOCKET: run this as root"
exec 9<"$root/scripts/bench.sh"
flock -n 9 || die "the bench is being run by another process"

# The bench and its children are a process group of their own: whatever ends this script ends them, too.
bench=
tidy_up() {
    if [ -n "$bench" ] && kill -0 "$bench" 2>/dev/null; then
        kill -TERM -- "-$bench" 2>/dev/null || true
        wait "$bench" 2>/dev/null || true
        folder=$(cat "$work/folder" 2>/dev/null || true)
        case $folder in /tmp/cotter-*) rm -rf "$folder" ;; esac
    fi
    rm -rf "$work"
    scripts/test-parts.sh stop
}
scripts/test-parts.sh stop
rm -rf "$work"
mkdir "$work"
trap 'exit 130' INT TERM HUP
trap tidy_up EXIT

cp "$(scripts/build-for.sh "$(host_target)")" "$work/cotter"
cargo bench --locked --bench budgets --no-run
program=$(cargo bench --locked --bench budgets --no-run 2>&1 | sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
[ -x "$program" ] || die "cargo does not tell where the bench is"
COTTER_TEST_BINARY=$work/cotter setsid "$program" --note "$work/folder" "$@" 9>&- &
bench=$!
wait "$bench" || die "the bench failed: the lines above say why"
