#!/usr/bin/env bash
# The packages and units under a real systemd, tests/systemd: `make test-systemd`. As root, on Debian or anything with
# debootstrap and systemd-nspawn; no network beyond Debian's packages is needed. Installs what is missing.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
cd "$root"

is_root || die "a system is booted here: run this as root"
[ ! -e /run/cotter ] || die "/run/cotter exists: an agent of this machine uses it, and the test needs it"
scripts/prepare.sh
command -v debootstrap >/dev/null || apt_install "to make a small Debian" debootstrap
command -v systemd-nspawn >/dev/null || apt_install "to boot it" systemd-container
command -v nsenter >/dev/null || apt_install "to run commands in it" util-linux
cargo test --locked --test systemd -- --nocapture --test-threads=1
