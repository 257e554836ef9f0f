#!/usr/bin/env bash
# Builds releases of the demo app without any network and pushes them to a registry.
#
#   scripts/build-demo-images.sh REGISTRY LABEL RELEASE[,NAME=VALUE...]...
#
# REGISTRY is an address such as 127.0.0.1:5000. Each RELEASE becomes the image
# REGISTRY/demo/app:RELEASE, which answers with RELEASE and behaves as its variables say
# (demo/app/main.rs), and bears the label io.cotter.demo=LABEL, so that it can be found and
# removed. Nothing of them stays in the engine: who wants to run one has to pull it.
# Prints a line per release: its name, a space, its reference by digest.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

[ $# -ge 3 ] || die "usage: build-demo-images.sh REGISTRY LABEL RELEASE[,NAME=VALUE...]..."
registry=$1
label=$2
shift 2
choose_docker
work=$(mktemp -d)
# The engine keeps the layers as long as something refers to them; the last reference goes here.
built=()
tidy() {
    local image
    for image in "${built[@]}"; do docker rmi "$image" >/dev/null 2>&1 || true; done
    rm -rf "$work"
}
trap tidy EXIT

rustc --edition 2024 -C opt-level=s -C panic=abort -C strip=symbols -C target-feature=+crt-static \
    "$here/../demo/app/main.rs" -o "$work/app"

for release in "$@"; do
    IFS=, read -ra settings <<<"$release"
    tag=${settings[0]}
    image=$registry/demo/app:$tag
    {
        cat "$here/../demo/app/Dockerfile"
        printf 'ENV DEMO_RELEASE="%s"\n' "$tag"
        for setting in "${settings[@]:1}"; do
            printf 'ENV %s="%s"\n' "${setting%%=*}" "${setting#*=}"
        done
    } >"$work/Dockerfile"
    built+=("$image")
    docker build --quiet --network none --build-arg LABEL="$label" --tag "$image" "$work" >/dev/null 2>"$work/log" ||
        die "cannot build $image: $(tail -n 3 "$work/log")"
    docker push "$image" >"$work/log" 2>&1 || die "cannot push $image: $(tail -n 1 "$work/log")"
    digest=$(sed -n 's/.*digest: \(sha256:[0-9a-f]*\).*/\1/p' "$work/log")
    [ -n "$digest" ] || die "the push of $image told no digest: $(tail -n 1 "$work/log")"
    echo "$tag $registry/demo/app@$digest"
done
