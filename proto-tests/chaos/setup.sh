# What proto-tests/chaos.sh and proto-tests/soak.sh share. Sourced from the top directory, not run.

# shellcheck source=deploy/setup.sh
. deploy/setup.sh

# Builds what is needed and becomes the named program, in a network namespace of its own where that can be had.
alone() {
    local program=$1 target=${CARGO_TARGET_DIR:-target}
    shift
    ensure_tools cc redis-server initdb postgres psql ip
    ensure_cargo
    cargo build --release --quiet --bin fusewire
    cargo build --quiet --package proto-tests --bin "$program"
    export FUSEWIRE_BIN=${FUSEWIRE_BIN:-$PWD/$target/release/fusewire}
    if [ "$(id -u)" = 0 ]; then
        # shellcheck disable=SC2016
        exec unshare --net sh -c 'ip link set lo up && exec "$@"' sh "$target/debug/$program" "$@"
    fi
    exec "$target/debug/$program" "$@"
}
