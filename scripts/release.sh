#!/usr/bin/env bash
# Everything that a release publishes, into dist/: `make release`.
#
#   scripts/release.sh [ARCH...]         amd64, arm64 and armhf, or these
#   scripts/release.sh --archive COTTER COTTER-FLEET ARCH DIR
#                                        the archive of static binaries that are there, into DIR
#   scripts/release.sh --finish DIR      packages are in DIR: adds install.sh, the apt repository and SHA256SUMS
#   scripts/release.sh --check-tag TAG   whether TAG, Cargo.toml and packaging/deb/changelog name the same version
#
# dist/ has Debian packages, static binaries, a list of the crates in them (CycloneDX), install.sh, an apt repository
# and SHA256SUMS. docs/install.md says how to use them.
#
# COTTER_SIGNING_KEY names a secret key of gpg's keyring: the apt repository and SHA256SUMS are signed with it.
# The same source, compilers and architectures give the same files, except for signatures. ZIG=1: build-for.sh.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
cd "$root"
umask 022

# The tool that lists the crates, at a version that we have read the output of.
cyclonedx_version=0.5.9

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.lock)}
export SOURCE_DATE_EPOCH
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)

check_tag() {
    local logged
    logged=$(sed -n 's/^cotter (\(.*\)) .*/\1/p' packaging/deb/changelog | head -n 1)
    [ "$1" = "v$version" ] ||
        die "the tag is $1 and Cargo.toml has version $version: tag v$version, or change the version and Cargo.lock"
    [ "$logged" = "$version" ] ||
        die "packaging/deb/changelog begins with $logged and Cargo.toml has version $version: add an entry"
}

# `archive FOLDER NAME FILE`: NAME in FOLDER as FILE.tar.gz, the same bytes whenever it is made. A test sets ARCHIVE_LEVEL.
archive() {
    tar --create --directory="$1" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
        --format=gnu "$2" | gzip "-${ARCHIVE_LEVEL:-9}n" >"$3"
}

# `pack COTTER COTTER-FLEET ARCH DIR`: both binaries with their settings and units.
pack() {
    local tree
    tree=$(mktemp -d)
    install -D -m 755 "$1" "$tree/cotter-$version/cotter"
    install -m 755 "$2" "$tree/cotter-$version/cotter-fleet"
    install -m 644 -t "$tree/cotter-$version" README.md LICENSE
    cp -r --no-preserve=mode docs config systemd "$tree/cotter-$version"
    archive "$tree" "cotter-$version" "$4/cotter_${version}_static_$3.tar.gz"
    rm -r "$tree"
}

# `static ARCH DIR`: the binaries that need no C library; none for armhf.
static() {
    local target name binary binaries=()
    case $1 in
        amd64) target=x86_64-unknown-linux-musl ;;
        arm64) target=aarch64-unknown-linux-musl ;;
        *) return 0 ;;
    esac
    for name in cotter cotter-fleet; do
        say "building a static $name for $1"
        binary=$(scripts/build-for.sh "$target" "$name") || die "the build of $name for $target failed"
        ! readelf --dynamic --program-headers "$binary" | grep -qE 'NEEDED|INTERP' || die "$binary is not static"
        binaries+=("$binary")
    done
    pack "${binaries[@]}" "$1" "$2"
}

# `crates ARCH DIR`: which crates are in the binaries. Both binaries come from one package, so one list has both.
crates() {
    local target name=cotter_${version}_$1.cdx tool=$root/.cross/cyclonedx
    case $1 in
        amd64) target=x86_64-unknown-linux-gnu ;;
        arm64) target=aarch64-unknown-linux-gnu ;;
        *) target=armv7-unknown-linux-gnueabihf ;;
    esac
    if [ "$("$tool/bin/cargo-cyclonedx" cyclonedx --version 2>/dev/null)" != "cargo-cyclonedx-cyclonedx $cyclonedx_version" ]; then
        say "installing cargo-cyclonedx $cyclonedx_version into .cross/cyclonedx"
        cargo install --quiet --locked --debug --root "$tool" --target-dir "$tool/target" \
            --version "$cyclonedx_version" --force cargo-cyclonedx
        rm -rf "$tool/target"
    fi
    "$tool/bin/cargo-cyclonedx" cyclonedx --quiet --quiet --format json --spec-version 1.5 --all-features \
        --target "$target" --override-filename "$name"
    # Where this clone is says nothing about the release.
    sed "s|path+file://$root#|path+file:///cotter#|g" "$name.json" >"$2/$name.json"
    rm "$name.json"
}

# `sign OPTION FILE SIGNED`: signs FILE with the key that is named.
sign() { gpg --batch --yes --local-user "$COTTER_SIGNING_KEY" --armor --output "$3" "$1" "$2"; }

# `repository DIR`: the packages of DIR as an apt repository, DIR/apt.
repository() {
    local apt=$1/apt arch arches=() release
    rm -rf "$apt"
    mkdir -p "$apt/pool/main/c/cotter"
    cp -l "$1"/*.deb "$apt/pool/main/c/cotter" 2>/dev/null || cp "$1"/*.deb "$apt/pool/main/c/cotter"
    for arch in amd64 arm64 armhf; do
        compgen -G "$1/*_$arch.deb" >/dev/null || continue
        arches+=("$arch")
        mkdir -p "$apt/dists/stable/main/binary-$arch"
        (cd "$apt" && apt-ftparchive --arch "$arch" packages pool) >"$apt/dists/stable/main/binary-$arch/Packages"
        gzip -9nk "$apt/dists/stable/main/binary-$arch/Packages"
    done
    release=(-o APT::FTPArchive::Release::Origin=Cotter -o APT::FTPArchive::Release::Label=Cotter
        -o APT::FTPArchive::Release::Suite=stable -o APT::FTPArchive::Release::Codename=stable
        -o APT::FTPArchive::Release::Components=main
        -o "APT::FTPArchive::Release::Date=$(date --utc --date="@$SOURCE_DATE_EPOCH" '+%a, %d %b %Y %H:%M:%S +0000')"
        -o "APT::FTPArchive::Release::Architectures=${arches[*]}")
    apt-ftparchive "${release[@]}" release "$apt/dists/stable" >"$1/Release"
    mv "$1/Release" "$apt/dists/stable/Release"
    if [ -n "${COTTER_SIGNING_KEY:-}" ]; then
        sign --clear-sign "$apt/dists/stable/Release" "$apt/dists/stable/InRelease"
        sign --detach-sign "$apt/dists/stable/Release" "$apt/dists/stable/Release.gpg"
        gpg --batch --yes --armor --output "$apt/cotter.asc" --export "$COTTER_SIGNING_KEY"
    else
        say "the apt repository is unsigned: COTTER_SIGNING_KEY names no key. apt accepts it with [trusted=yes] only"
    fi
}

# `finish DIR`: what is made of the packages that are in DIR.
finish() {
    local dir=$1 sums
    compgen -G "$dir/*.deb" >/dev/null || die "there are no packages in $dir"
    command -v apt-ftparchive >/dev/null || apt_install "to make an apt repository" apt-utils
    repository "$dir"
    install -m 755 packaging/install.sh "$dir/install.sh"
    archive "$dir" apt "$dir/apt.tar.gz"
    rm -f "$dir"/SHA256SUMS*
    sums=$(cd "$dir" && find . -maxdepth 1 -type f -printf '%P\n' | sort | xargs sha256sum)
    printf '%s\n' "$sums" >"$dir/SHA256SUMS"
    [ -z "${COTTER_SIGNING_KEY:-}" ] || sign --detach-sign "$dir/SHA256SUMS" "$dir/SHA256SUMS.asc"
}

case ${1:-} in
    --check-tag)
        [ $# = 2 ] || die "usage: release.sh --check-tag TAG"
        check_tag "$2"
        exit 0
        ;;
    --archive)
        [ $# = 5 ] || die "usage: release.sh --archive COTTER COTTER-FLEET ARCH DIR"
        pack "$2" "$3" "$4" "$5"
        exit 0
        ;;
    --finish)
        [ $# = 2 ] || die "usage: release.sh --finish DIR"
        finish "$2"
        exit 0
        ;;
    -*) die "usage: release.sh [ARCH...]; the head of this file says what else" ;;
esac
[ -z "${COTTER_SIGNING_KEY:-}" ] || gpg --batch --list-secret-keys "$COTTER_SIGNING_KEY" >/dev/null ||
    die "COTTER_SIGNING_KEY names $COTTER_SIGNING_KEY, and gpg has no such secret key: import it, or unset the variable"
arches=("$@")
[ $# -gt 0 ] || arches=(amd64 arm64 armhf)
dist=$root/dist
rm -rf "$dist"
mkdir -p "$dist"
# deb.sh leaves out an architecture that cannot be had here, and packages of an earlier build would take its place.
packages=${CARGO_TARGET_DIR:-$root/target}/debian
rm -f "$packages"/*_"$version"_*.deb
scripts/deb.sh "${arches[@]}" >/dev/null
for arch in "${arches[@]}"; do
    for name in cotter cotter-fleet; do
        package=$packages/${name}_${version}_$arch.deb
        [ -e "$package" ] || die "there is no $package: the lines above say why"
        cp "$package" "$dist"
    done
    static "$arch" "$dist"
    crates "$arch" "$dist"
done
finish "$dist"
say "dist/ has:"
(cd "$dist" && find . -type f -printf '%s %P\n' | sort -k 2 | awk '{ printf "%9.2f MiB  %s\n", $1 / 1048576, $2 }') >&2
