# shellcheck shell=bash
# What the scripts share. Sourced, never run. Diagnostics go to stderr, answers to stdout.

# The engine that Cotter uses when nothing else is said.
COTTER_ENGINE_SOCKET=${COTTER_ENGINE_SOCKET:-/var/run/docker.sock}
# Whatever context or host the user's docker client has: these scripts mean this engine.
export DOCKER_HOST="unix://$COTTER_ENGINE_SOCKET"
# Images are built by the engine's own builder: it needs no plugin and no network.
export DOCKER_BUILDKIT=0
# Parsed output must not depend on the reader's language.
export LC_ALL=C
# Daemons live in sbin, which a user's PATH may lack; cargo where rustup puts it.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin

say() { printf '%s\n' "$*" >&2; }
die() {
    say "error: $*"
    exit 1
}

is_root() { [ "$(id -u)" = 0 ]; }

# Runs a command as root: directly, or by sudo. $1 says what for.
as_root() {
    local what_for=$1
    shift
    if is_root; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "$what_for needs root: run this as root, or install sudo and give this user the right to use it"
    fi
}

is_systemd() { [ -d /run/systemd/system ]; }

# Installs Debian packages that are missing: `apt_install what-for package...`
apt_install() {
    local what_for=$1 attempt
    shift
    command -v apt-get >/dev/null ||
        die "$what_for is missing and this is no Debian: install what provides $* with your system's tools"
    say "installing $* ($what_for)"
    for attempt in 1 2 3; do
        if as_root "$what_for" apt-get update -qq >&2 &&
            as_root "$what_for" env DEBIAN_FRONTEND=noninteractive \
                apt-get install -y -qq --no-install-recommends "$@" >&2; then
            return 0
        fi
        say "apt-get did not succeed (attempt $attempt of 3)"
        sleep $((attempt * 3))
    done
    die "could not install $*: see the lines above; once it works, \`apt-get install $*\` is all that is missing"
}

# Whether process $1 runs and its command line contains $2. A pid from a file is never
# trusted alone: after a reboot it may name a stranger.
is_process() {
    local pid=$1 words=$2
    [[ $pid =~ ^[0-9]+$ ]] && [ -r "/proc/$pid/cmdline" ] &&
        tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$words"
}

# Starts a program apart from this shell and writes its pid to file $1; its output goes to
# file $2. Returns once it is the program that $3, a part of its command line, tells.
start_process() {
    local pid_file=$1 log=$2 words=$3 pid end=$((SECONDS + 5))
    shift 3
    # The file descriptors above 2 are this shell's: a lock held by one must end with the shell.
    setsid nohup "$@" >>"$log" 2>&1 </dev/null 9>&- &
    pid=$!
    echo "$pid" >"$pid_file"
    # Until it has begun, its command line is this shell's, and nobody could tell whose it is.
    until is_process "$pid" "$words"; do
        if ! kill -0 "$pid" 2>/dev/null || ((SECONDS >= end)); then return 1; fi
        sleep 0.01
    done
}

# Stops process $1 if its command line contains $2: SIGTERM, then SIGKILL after $3 seconds.
stop_process() {
    local pid=$1 words=$2 patience=${3:-10} end
    is_process "$pid" "$words" || return 0
    kill -TERM "$pid" 2>/dev/null || as_root "stopping process $pid" kill -TERM "$pid" || true
    end=$((SECONDS + patience))
    while is_process "$pid" "$words"; do
        if ((SECONDS >= end)); then
            say "process $pid did not stop within $patience s: killed"
            kill -KILL "$pid" 2>/dev/null || as_root "stopping process $pid" kill -KILL "$pid" || true
            sleep 0.2
            return 0
        fi
        sleep 0.05
    done
}

# Whether the engine answers us.
engine_answers() {
    curl -fsS --max-time 5 --unix-socket "$COTTER_ENGINE_SOCKET" http://engine/_ping >/dev/null 2>&1
}

# The docker client to use. Several may be installed, and one may be too new for the
# engine: the first in PATH that gets an answer is taken.
DOCKER=
docker() { "$DOCKER" "$@"; }
choose_docker() {
    local client
    while read -r client; do
        if "$client" version >/dev/null 2>&1; then
            DOCKER=$client
            return 0
        fi
    done < <(type -aP docker | awk '!seen[$0]++')
    die "no docker client in PATH gets an answer from $COTTER_ENGINE_SOCKET: run scripts/ensure-engine.sh"
}

# This machine's own target.
host_target() { rustc -vV | sed -n 's/^host: //p'; }

# The newest glibc that binary $1 asks for; nothing if it asks for none.
glibc_of() { readelf --version-info "$1" | sed -n 's/.*Name: GLIBC_\([0-9.]*\).*/\1/p' | sort -Vu | tail -n 1; }

# The words that run binaries of target $1 here; none for this machine's own.
emulator() {
    case $1 in
        aarch64-unknown-linux-gnu) echo "qemu-aarch64-static -L /usr/aarch64-linux-gnu" ;;
        armv7-unknown-linux-gnueabihf) echo "qemu-arm-static -L /usr/arm-linux-gnueabihf" ;;
        aarch64-unknown-linux-musl) echo "qemu-aarch64-static" ;;
        *) ;;
    esac
}
