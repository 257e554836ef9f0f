#!/usr/bin/env bash
# Builds a binary as it is shipped, also for an architecture that this machine does not have, and prints its path.
#
#   scripts/build-for.sh TARGET [cotter]         the agent and the operator's command, small
#   scripts/build-for.sh TARGET cotter-fleet     the fleet server, fast
#   scripts/build-for.sh --quick TARGET [...]    as tests are built, in a fifth of the time
#
# Debian's cross compilers link it. With ZIG=1 zig does, for a glibc of 2.28 at least where
# Debian's ask for their own; it is got from PyPI into .cross/ (450 MB). Ends with 3, and one
# line that says why, where the target cannot be had here.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
cd "$root"

# The oldest glibc that zig links for: Debian 10, Ubuntu 18.10.
floor=2.28

is_quick=
if [ "${1:-}" = --quick ]; then
    is_quick=1
    shift
fi
[ $# = 1 ] || [ $# = 2 ] || die "usage: build-for.sh [--quick] TARGET [cotter|cotter-fleet]"
target=$1
program=${2:-cotter}
case $program in
    # Without what only the server needs.
    cotter) profile=release features=(--no-default-features) ;;
    cotter-fleet) profile=server features=() ;;
    *) die "there is no program $program: say cotter or cotter-fleet" ;;
esac
words=(build --locked "${features[@]}" --bin "$program")
if [ -n "$is_quick" ]; then profile=debug; else words+=(--profile "$profile"); fi
skip() {
    say "skipped: $target: $*"
    exit 3
}

# `get COMMAND PACKAGE`: Debian's package, if the command is not there.
get() {
    command -v "$1" >/dev/null || (apt_install "to build for $target" "$2") || skip "$2 cannot be installed"
}

# `get_compiler ARCHITECTURE TRIPLE`: Debian's cross compiler and the headers of its C library, which it only
# recommends; `linker` is the compiler.
get_compiler() {
    linker=$2-gcc
    if ! command -v "$linker" >/dev/null || [ ! -e "/usr/$2/include/stdint.h" ]; then
        (apt_install "to build for $target" "gcc-$2" "libc6-dev-$1-cross") || skip "gcc-$2 cannot be installed"
    fi
}

host=$(rustc -vV | sed -n 's/^host: //p')
has_target() { [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; }
has_target || ! command -v rustup >/dev/null || rustup target add "$target" >&2 || true
has_target || skip "Rust has no library for it here; \`rustup target add $target\`"

libc=gnu
folder=$target/
case $target in
    "$host") ;;
    aarch64-unknown-linux-gnu) get_compiler arm64 aarch64-linux-gnu ;;
    armv7-unknown-linux-gnueabihf) get_compiler armhf arm-linux-gnueabihf ;;
    # Static: the C library comes with Rust's own for musl, and the compiler only has to be for the architecture.
    x86_64-unknown-linux-musl)
        libc=musl
        if [ "${host%%-*}" = x86_64 ]; then linker=cc; else get_compiler amd64 x86_64-linux-gnu; fi
        ;;
    aarch64-unknown-linux-musl) get_compiler arm64 aarch64-linux-gnu && libc=musl ;;
    *) die "it is not known how to link for $target; known are aarch64-unknown-linux-gnu, armv7-unknown-linux-gnueabihf, x86_64-unknown-linux-musl, aarch64-unknown-linux-musl and $host" ;;
esac

if [ "${ZIG:-}" = 1 ] && [ "$libc" = gnu ]; then
    zig=$root/.cross/zig
    if ! "$zig/bin/python" -m ziglang version >/dev/null 2>&1; then
        get python3 python3-venv
        python3 -m venv "$zig" >&2 || (apt_install "to install zig" python3-venv && python3 -m venv "$zig" >&2) ||
            skip "python3 makes no venv for zig"
        "$zig/bin/python" -m pip install --quiet ziglang cargo-zigbuild >&2 || skip "zig cannot be had from PyPI"
    fi
    words=(zigbuild "${words[@]:1}" --target "$target.$floor")
    PATH=$zig/bin:$PATH cargo "${words[@]}" >&2
elif [ "$target" = "$host" ]; then
    cargo "${words[@]}" >&2
    folder=
else
    name=${target//-/_}
    # Rust's own linker, as for this machine: build.rs lets it fold equal functions into one.
    lld=$(rustc --print sysroot)/lib/rustlib/$host/bin/gcc-ld
    flags=
    [ ! -x "$lld/ld.lld" ] || flags="-C link-arg=-fuse-ld=lld -C link-arg=-B$lld"
    env "CARGO_TARGET_${name^^}_LINKER=$linker" "CC_$name=$linker" "CARGO_TARGET_${name^^}_RUSTFLAGS=$flags" \
        cargo "${words[@]}" --target "$target" >&2
fi
echo "${CARGO_TARGET_DIR:-$root/target}/$folder$profile/$program"
