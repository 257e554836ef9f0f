#!/bin/sh
# Installs Cotter from a release, on Debian 12, Ubuntu 22.04, Raspberry Pi OS of 2023, or newer.
#
#   COTTER_URL=https://downloads.example.com/cotter/0.2.0 sh install.sh [--server] [--dry-run]
#
# COTTER_URL is the folder with the files of the release. --server installs the fleet server (package cotter-fleet)
# instead of the agent (package cotter). --dry-run checks this machine, says what would be done, and changes nothing.
#
# It downloads SHA256SUMS and one package, compares the package with SHA256SUMS, and installs it with apt-get. Nothing
# else is changed. All of it is in functions, and the last line calls the first one: a download that was cut off does
# nothing.
set -eu

say() { printf '%s\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# `has_version MINIMUM`: whether this system's version is MINIMUM or newer. One without a version is newer than all
# that have one.
has_version() { [ -z "$VERSION_ID" ] || dpkg --compare-versions "$VERSION_ID" ge "$1"; }

# Sets `architecture` and `system`. Ends where no package runs. Tests set OS_RELEASE.
check_system() {
    command -v apt-get >/dev/null ||
        die "there is no apt-get here: the packages are for Debian, Ubuntu and Raspberry Pi OS. There is a static binary for other systems"
    architecture=$(dpkg --print-architecture)
    case $architecture in
        amd64 | arm64 | armhf) ;;
        *) die "there is no package for $architecture, only for amd64, arm64 and armhf" ;;
    esac
    [ "$(uname -m)" != armv6l ] ||
        die "this processor is an ARMv6 (Raspberry Pi 1 or Zero), and Cotter needs an ARMv7 or newer"
    ID='' VERSION_ID='' PRETTY_NAME=''
    # shellcheck source=/dev/null
    . "${OS_RELEASE:-/etc/os-release}"
    system=${PRETTY_NAME:-$ID $VERSION_ID}
    case $ID in
        debian | raspbian) has_version 12 || die "$system is too old: Debian 12 or newer is needed. There is a static binary for older systems" ;;
        ubuntu) has_version 22.04 || die "$system is too old: Ubuntu 22.04 or newer is needed. There is a static binary for older systems" ;;
        *) die "it is not known whether the package runs on ${system:-this system}. To try, install the .deb with apt-get; there is a static binary for other systems" ;;
    esac
}

# Checks where the files come from. Whoever can change what is sent over http:// could change SHA256SUMS, too.
check_url() {
    url=${COTTER_URL:-}
    url=${url%/}
    case $url in
        '') die "COTTER_URL is not set: it is the folder with the files of the release, e.g. COTTER_URL=https://downloads.example.com/cotter/0.2.0" ;;
        https://* | file:///* | http://127.0.0.1[:/]* | http://localhost[:/]*) ;;
        http://*) die "COTTER_URL is $url: over http:// anyone on the way can change the files. Use https://" ;;
        *) die "COTTER_URL is $url: it begins with https:// or file:///" ;;
    esac
}

# `fetch NAME FILE`: a file of the release.
fetch() {
    if [ "${url#file://}" != "$url" ]; then
        cp "${url#file://}/$1" "$2" || die "there is no ${url#file://}/$1: is COTTER_URL right?"
    elif command -v curl >/dev/null; then
        curl --fail --silent --show-error --location --proto-redir =https --output "$2" "$url/$1" ||
            die "$url/$1 cannot be downloaded: is COTTER_URL right?"
    elif command -v wget >/dev/null; then
        wget --quiet --output-document="$2" "$url/$1" || die "$url/$1 cannot be downloaded: is COTTER_URL right?"
    else
        die "neither curl nor wget is installed: apt-get install curl"
    fi
}

install_package() {
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    trap 'exit 1' HUP INT TERM
    # apt reads the package as a user of its own.
    chmod 755 "$folder"
    fetch SHA256SUMS "$folder/SHA256SUMS"
    grep -E "^[0-9a-f]{64}  ${package}_[0-9][0-9A-Za-z.+~-]*_$architecture\.deb\$" "$folder/SHA256SUMS" >"$folder/sum" ||
        die "$url/SHA256SUMS has no package $package for $architecture"
    [ "$(wc -l <"$folder/sum")" = 1 ] || die "$url/SHA256SUMS has several packages $package for $architecture: COTTER_URL must name one release"
    file=$(cut -c 67- "$folder/sum")
    say "This machine is $system, $architecture."
    say "$file is downloaded from $url, compared with SHA256SUMS, and installed with apt-get."
    [ "$package" != cotter ] || say "apt-get also installs docker.io, unless an engine is installed."
    if [ -n "$is_dry" ]; then
        say "Nothing was changed (--dry-run)."
        return
    fi
    [ "$(id -u)" = 0 ] || die "packages are installed by root: run this with sudo, or as root"
    fetch "$file" "$folder/$file"
    (cd "$folder" && sha256sum --check --status sum) ||
        die "$file is not the file that SHA256SUMS names, so it was not installed: download it again, and if that does not help, tell whoever runs $url"
    # Settings that were changed stay as they are.
    DEBIAN_FRONTEND=noninteractive apt-get install --yes -o Dpkg::Options::=--force-confdef \
        -o Dpkg::Options::=--force-confold "$folder/$file" ||
        die "apt-get did not install $file: see its lines above"
}

main() {
    package=cotter
    is_dry=
    for word in "$@"; do
        case $word in
            --server) package=cotter-fleet ;;
            --dry-run) is_dry=1 ;;
            *) die "$word is not known. Usage: COTTER_URL=https://... sh install.sh [--server] [--dry-run]" ;;
        esac
    done
    check_system
    check_url
    install_package
}

# In braces, so that not even a part of this line runs by itself.
{ main "$@"; }
