#!/usr/bin/env bash
# Makes sure of everything that `make demo` and `make test` need on a fresh Debian machine
# with a Rust toolchain: a C linker, curl, the Docker Engine, an image registry. Changes
# nothing where all is there.
#
#   scripts/prepare.sh              to build, to test and for the demo
#   scripts/prepare.sh --to-build   only to build: neither an engine nor a registry
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

minimum=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$here/../Cargo.toml")
how="get Rust $minimum or newer with rustfmt and clippy from https://rustup.rs (\`rustup default stable\`)"
for tool in cargo rustc; do
    command -v "$tool" >/dev/null || die "$tool is missing: $how"
done
found=$(rustc --version) || die "rustc does not run: $how"
found=$(awk '{ split($2, part, "."); print part[1] "." part[2] }' <<<"$found")
[ "$(printf '%s\n' "$minimum" "$found" | sort -V | head -n 1)" = "$minimum" ] ||
    die "rustc is $found, too old: $how"
missing=()
command -v cc >/dev/null || missing+=(gcc)
[ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
if [ "${1:-}" = --to-build ]; then
    [ ${#missing[@]} = 0 ] || apt_install "needed to build Cotter" "${missing[@]}"
    exit 0
fi
for part in fmt clippy; do
    cargo "$part" --version >/dev/null 2>&1 ||
        die "\`cargo $part\` is missing: \`rustup component add rustfmt clippy\`, or Debian's packages rustfmt and rust-clippy"
done
command -v curl >/dev/null || missing+=(curl ca-certificates)
command -v ip >/dev/null || missing+=(iproute2)
command -v docker-registry >/dev/null || missing+=(docker-registry)
command -v openssl >/dev/null || missing+=(openssl)
command -v apt-ftparchive >/dev/null || missing+=(apt-utils)
command -v gpg-agent >/dev/null || missing+=(gpg gpg-agent)
[ -x /bin/busybox ] || missing+=(busybox-static)
[ ${#missing[@]} = 0 ] || apt_install "needed to build and to try Cotter" "${missing[@]}"

# A second engine for the tests, which go without it where it cannot be had.
second=()
for tool in podman runc catatonit iptables; do
    command -v "$tool" >/dev/null || second+=("$tool")
done
for part in netavark aardvark-dns; do
    [ -x "/usr/lib/podman/$part" ] || second+=("$part")
done
[ ${#second[@]} = 0 ] || (apt_install "podman, a second engine for the tests" "${second[@]}") || true

# openvpn, both ends of the VPN of a cloud. The tests go without it where it cannot be had. Its package runs nothing without
# settings.
[ -x /usr/sbin/openvpn ] || (apt_install "openvpn, for tests of the VPN of a cloud" openvpn) || true

# PostgreSQL for tests of several fleet servers, which start one of their own. The tests go without it where it cannot be had.
# The package makes and starts a server of this machine; that is removed again, unless there was one before.
install_postgresql() {
    local before
    before=$(compgen -G "/var/lib/postgresql/*/main" || true)
    (apt_install "PostgreSQL, for tests of several fleet servers" postgresql) || return 1
    local main
    for main in $(compgen -G "/var/lib/postgresql/*/main" || true); do
        [ -n "$before" ] || as_root "PostgreSQL for the tests" pg_dropcluster --stop "$(basename "$(dirname "$main")")" main
    done
}
compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || install_postgresql || true

# A fuzzer that holds the servers against their OpenAPI documents. The tests go without it where it cannot be had.
fuzzer=$here/../.cross/schemathesis
pinned=$here/../tests/openapi/requirements.txt
install_fuzzer() {
    say "installing schemathesis (a fuzzer for the tests) into .cross/schemathesis"
    rm -rf "$fuzzer"
    python3 -m venv "$fuzzer" >&2 ||
        (apt_install "python3 with venv, to install schemathesis" python3-venv && python3 -m venv "$fuzzer" >&2) &&
        "$fuzzer/bin/python" -m pip install --quiet --no-deps --requirement "$pinned" >&2 &&
        cp "$pinned" "$fuzzer/installed"
}
cmp -s "$pinned" "$fuzzer/installed" || install_fuzzer ||
    { rm -rf "$fuzzer" && say "schemathesis cannot be had from PyPI"; }

# Docker Compose, the judge of how compose projects are read. The tests go without it where it cannot be had.
compose=$here/../.cross/compose
judge=$here/../tests/compose_projects/requirements.txt
install_compose() {
    say "installing docker-compose (a judge for the tests) into .cross/compose"
    rm -rf "$compose"
    "$fuzzer/bin/python" -m pip install --quiet --no-deps --target "$compose" --requirement "$judge" >&2 &&
        cp "$judge" "$compose/installed"
}
cmp -s "$judge" "$compose/installed" || install_compose ||
    { rm -rf "$compose" && say "docker-compose cannot be had from PyPI"; }

# A browser for tests of the dashboard. They go without it where it cannot be had.
command -v chromium >/dev/null && command -v chromedriver >/dev/null ||
    (apt_install "Chromium, for tests of the dashboard" chromium chromium-driver fonts-dejavu-core) || true

# axe-core, which finds what keeps people from using a page. The tests go without it where it cannot be had.
axe=$here/../.cross/axe
axe_version=4.10.3
axe_sha256=880970c081707360e64f34cea25ff91892f5bc95675b0776925b9709dd8a68bb
fetch_axe() {
    say "fetching axe-core (a judge for the tests) into .cross/axe"
    rm -rf "$axe"
    mkdir -p "$axe"
    (cd "$axe" && npm pack --silent "axe-core@$axe_version" >&2) &&
        tar -xzf "$axe/axe-core-$axe_version.tgz" -C "$axe" --strip-components=1 package/axe.min.js package/LICENSE &&
        rm "$axe/axe-core-$axe_version.tgz" && is_axe
}
is_axe() { [ -e "$axe/axe.min.js" ] && echo "$axe_sha256  $axe/axe.min.js" | sha256sum --quiet --check - >&2; }
command -v npm >/dev/null || (apt_install "npm, to fetch axe-core" npm) || true
is_axe || fetch_axe || { rm -rf "$axe" && say "axe-core cannot be had from npm"; }

# The proxies of docs/server.md. They are unpacked and not installed: a package would start a server on this machine.
# The tests go without them where they cannot be had.
proxies=$here/../.cross/proxies
unpack_proxies() {
    say "unpacking nginx and Caddy (for a test) into .cross/proxies"
    rm -rf "$proxies"
    mkdir -p "$proxies"
    download() { (cd "$proxies" && apt-get -qq -o APT::Sandbox::User=root download nginx caddy >&2); }
    download || { as_root "a list of packages" apt-get update -qq >&2 && download; } || return 1
    local package
    for package in "$proxies"/*.deb; do dpkg -x "$package" "$proxies" || return 1; done
    "$proxies/usr/sbin/nginx" -v 2>/dev/null || (apt_install "what nginx is linked with" libpcre2-8-0 libssl3 libcrypt1)
}
[ -x "$proxies/usr/sbin/nginx" ] || unpack_proxies || { rm -rf "$proxies" && say "nginx and Caddy cannot be had from Debian"; }

# Prometheus's tool that checks docs/alerts.yml. The test goes without it where it cannot be had.
promtool=$here/../.cross/promtool
unpack_promtool() {
    say "unpacking promtool (for a test) into .cross/promtool"
    rm -rf "$promtool"
    mkdir -p "$promtool"
    download() { (cd "$promtool" && apt-get -qq -o APT::Sandbox::User=root download prometheus >&2); }
    download || { as_root "a list of packages" apt-get update -qq >&2 && download; } || return 1
    dpkg -x "$promtool"/*.deb "$promtool/unpacked" || return 1
    mv "$promtool/unpacked/usr/bin/promtool" "$promtool/promtool" || return 1
    rm -rf "$promtool"/*.deb "$promtool/unpacked"
}
[ -x "$promtool/promtool" ] || unpack_promtool || { rm -rf "$promtool" && say "promtool cannot be had from Debian"; }

"$here/ensure-engine.sh"
