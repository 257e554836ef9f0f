#!/usr/bin/env bash
# Debian packages, cotter and cotter-fleet: `make deb`. They come to target/debian/.
#
#   scripts/deb.sh [ARCH...]                              amd64, arm64 and armhf, or these
#   scripts/deb.sh --of NAME BINARY VERSION ARCH DIR      one package of a binary that is there
#
# Prints the path of each package. ZIG=1: for systems with a glibc of 2.28 or newer
# (build-for.sh); the package depends on the glibc that its binary really asks for.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
from=$root/packaging/deb
maintainer=${DEB_MAINTAINER:-Cotter maintainers <cotter@localhost>}

command -v dpkg-deb >/dev/null || die "dpkg-deb is missing: packages are made on Debian and its kin"
command -v readelf >/dev/null || apt_install "to see what a binary needs" binutils

# What binary $1 needs of the system, as `Depends:` says it.
needs() {
    local libc
    libc=$(glibc_of "$1")
    [ -z "$libc" ] || printf 'libc6 (>= %s), ' "$libc"
    ! readelf --dynamic "$1" | grep -q 'NEEDED.*libgcc_s' || printf 'libgcc-s1, '
}

target_of() {
    case $1 in
        amd64) echo x86_64-unknown-linux-gnu ;;
        arm64) echo aarch64-unknown-linux-gnu ;;
        armhf) echo armv7-unknown-linux-gnueabihf ;;
        *) die "no package is made for $1: say amd64, arm64 or armhf" ;;
    esac
}

# `manual NAME SECTION TREE`: man pages and completions of a command, as `make man` makes them; they are the same for
# each architecture.
manual() {
    local name=$1 made
    made=$(mktemp -d)
    (cd "$root" && cargo run --quiet --locked --example manual -- "$made")
    gzip -9n "$made/man$2"/*
    install -D -m 644 -t "$3/usr/share/man/man$2" "$made/man$2"/*
    install -D -m 644 "$made/completions/$name.bash" "$3/usr/share/bash-completion/completions/$name"
    install -D -m 644 -t "$3/usr/share/zsh/vendor-completions" "$made/completions/_$name"
    install -D -m 644 -t "$3/usr/share/fish/vendor_completions.d" "$made/completions/$name.fish"
    rm -r "$made"
}

# What the package cotter has besides, into $1.
device_files() {
    local unit
    for unit in systemd/*.service systemd/*.socket systemd/*.mount systemd/*.path; do
        [[ "$unit" = systemd/cotter-fleet* ]] || install -D -m 644 -t "$1/usr/lib/systemd/system" "$unit"
    done
    install -D -m 644 -t "$1/usr/lib/sysusers.d" systemd/sysusers.d/cotter.conf
    install -D -m 644 -t "$1/usr/lib/tmpfiles.d" systemd/tmpfiles.d/cotter.conf
    install -D -m 644 -t "$1/usr/lib/sysctl.d" systemd/sysctl.d/60-cotter-vpn.conf
    install -D -m 644 -t "$1/usr/lib/systemd/catalog" systemd/cotter.catalog
    install -D -m 644 -t "$1/etc/cotter" config/agent.toml
    install -d -m 755 "$1/etc/cotter/agent.d"
    manual cotter 1 "$1"
}

# What the package cotter-fleet has besides, into $1.
server_files() {
    install -D -m 644 -t "$1/usr/lib/systemd/system" systemd/cotter-fleet*
    install -D -m 644 -t "$1/etc/cotter" config/fleet.toml
    manual cotter-fleet 8 "$1"
}

# `package NAME BINARY VERSION ARCH DIR`: one package in DIR, its path printed.
package() {
    local name=$1 binary=$2 version=$3 arch=$4 tree file size
    mkdir -p "$5"
    file=$(cd "$5" && pwd)/${name}_${version}_$arch.deb
    tree=$(mktemp -d)
    # Files that anybody may read, whatever the umask of who builds.
    (
        umask 022
        chmod 755 "$tree"
        cd "$root"
        install -D -m 755 "$binary" "$tree/usr/bin/$name"
        install -D -m 644 -t "$tree/usr/share/doc/$name" README.md "$from/copyright"
        install -D -m 644 -t "$tree/usr/share/doc/$name/docs" docs/*.md
        install -D -m 644 "$from/$name/lintian-overrides" "$tree/usr/share/lintian/overrides/$name"
        case $name in
            cotter) device_files "$tree" ;;
            cotter-fleet) server_files "$tree" ;;
            *) die "there is no package $name: say cotter or cotter-fleet" ;;
        esac
        # The entry of this version stands first, whether or not it has been written.
        { grep -q "^cotter ($version)" "$from/changelog" || cat <<END; } >"$tree/changelog"
cotter ($version) unstable; urgency=medium

  * Built from the source as it is.

 -- $maintainer  $(date --utc --date="@$SOURCE_DATE_EPOCH" '+%a, %d %b %Y %H:%M:%S +0000')

END
        cat "$from/changelog" >>"$tree/changelog"
        gzip -9n <"$tree/changelog" >"$tree/usr/share/doc/$name/changelog.gz"
        rm "$tree/changelog"
        install -d -m 755 "$tree/DEBIAN"
        install -m 755 -t "$tree/DEBIAN" "$from/$name"/{preinst,postinst,prerm,postrm}
        (cd "$tree" && find etc -type f | sort | sed 's,^,/,') >"$tree/DEBIAN/conffiles"
        (cd "$tree" && find usr -type f -printf '%P\n' | sort | sed 's,^,usr/,' | xargs md5sum) >"$tree/DEBIAN/md5sums"
        size=$(du --summarize --apparent-size --block-size=1024 --exclude=DEBIAN "$tree" | cut -f1)
        sed -e "s|@VERSION@|$version|" -e "s|@ARCH@|$arch|" -e "s|@MAINTAINER@|$maintainer|" \
            -e "s|@SIZE@|$size|" -e "s|@DEPENDS@|$(needs "$binary")|" "$from/$name/control.in" >"$tree/DEBIAN/control"
    )
    dpkg-deb --root-owner-group "-Z${DEB_COMPRESSION:-xz}" --build "$tree" "$file" >/dev/null
    rm -rf "$tree"
    echo "$file"
}

# The same source gives the same package: the time is the last change's.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || stat -c %Y "$root/Cargo.lock")}
export SOURCE_DATE_EPOCH

if [ "${1:-}" = --of ]; then
    [ $# = 6 ] || die "usage: deb.sh --of NAME BINARY VERSION ARCH DIR"
    package "$2" "$3" "$4" "$5" "$6"
    exit 0
fi

"$root/scripts/prepare.sh" --to-build
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)
packages=()
arches=("$@")
[ $# -gt 0 ] || arches=(amd64 arm64 armhf)
for arch in "${arches[@]}"; do
    target=$(target_of "$arch")
    say "building for $arch"
    for name in cotter cotter-fleet; do
        binary=$("$root/scripts/build-for.sh" "$target" "$name") || {
            [ $? = 3 ] || die "the build of $name for $arch failed"
            continue 2
        }
        packages+=("$(package "$name" "$binary" "$version" "$arch" "${CARGO_TARGET_DIR:-$root/target}/debian")")
    done
done
[ ${#packages[@]} -gt 0 ] || die "no package was made: the lines above say why"
printf '%s\n' "${packages[@]}"
if command -v lintian >/dev/null; then
    lintian --allow-root --fail-on error,warning "${packages[@]}" >&2 || die "lintian has complaints: the lines above"
else
    say "lintian is not installed: the packages were not looked at"
fi
