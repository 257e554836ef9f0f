#!/usr/bin/env bash
# All that `make test` does: preparations, format, lints, documentation, every test, doc tests.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
cd "$root"

# The architecture of 32 bits, which is tried with a debug build.
arm=armv7-unknown-linux-gnueabihf

scripts/prepare.sh
scripts/lints.sh

# Where this user may not use the engine, the tests are built as this user and run by root.
as_engine_user=()
if ! engine_answers; then
    as_engine_user=(sudo env "PATH=$PATH" "HOME=$HOME" "COTTER_ENGINE_SOCKET=$COTTER_ENGINE_SOCKET")
    target=$(host_target | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${target}_RUNNER=${as_engine_user[*]}"
fi
# What a former run left when it was interrupted, and what this one leaves.
"${as_engine_user[@]}" scripts/test-parts.sh stop
trap '"${as_engine_user[@]}" scripts/test-parts.sh stop' EXIT
if ! is_root && [ ${#as_engine_user[@]} = 0 ]; then
    say "skipped: podman as a second engine, which is started by root"
elif ! command -v podman >/dev/null; then
    say "skipped: podman as a second engine: it is not installed"
fi
compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || say "skipped: PostgreSQL as the store of the fleet server: it is not installed"
[ -e .cross/schemathesis/bin/schemathesis ] || say "skipped: schemathesis, which holds the servers against their documents"
{ command -v chromium && command -v chromedriver; } >/dev/null || say "skipped: the dashboard in a browser: Chromium is not installed"
[ -e .cross/axe/axe.min.js ] || say "skipped: axe-core on each page of the dashboard"
# What the steps after the tests need is built while tests wait. Without a compiler for ARM it is built there, or skipped.
beside=()
if [ ${#as_engine_user[@]} = 0 ]; then
    beside=(sh -c "scripts/build-for.sh $(host_target) && { scripts/build-for.sh --quick $arm || [ \$? = 3 ]; }")
fi
say "running the tests"
scripts/run-tests.sh "${beside[@]}"
if [ ${#as_engine_user[@]} = 0 ]; then
    say "playing the demo, with the binaries of the tests"
    COTTER_DEMO_OF_TESTS=1 demo/run.sh >/dev/null
fi
# The one of 32 bits: what goes wrong on ARM alone goes wrong there. `make cross` does it for all.
if [ ${#as_engine_user[@]} -gt 0 ]; then
    say "skipped: the release binary, the attacks on it, and an agent for ARM; as root, \`make cross\` and \`make hostile\`"
else
    say "running an agent as it is shipped: \`cargo test\` builds without its optimizations"
    scripts/cross.sh "$(host_target)"
    say "attacking it, and a fleet server, with the limits of their units"
    scripts/hostile.sh --quick
    say "running an agent for ARM"
    scripts/cross.sh --quick $arm
fi
if ! is_root; then
    say "skipped: the unit under a real systemd; as root, \`make test-systemd\`"
elif [ -e /run/cotter ]; then
    say "skipped: the unit under a real systemd, because an agent of this machine uses /run/cotter"
else
    say "running the unit under a real systemd"
    scripts/test-systemd.sh
fi
