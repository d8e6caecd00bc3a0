#!/usr/bin/env bash
# fusewire beside HAProxy, PgBouncer, twemproxy and two proxies of our own that understand nothing, as a table and as JSON
# (target/bench.json): bench.sh --help. All of it takes about six minutes on a quiet machine with two cores, and a build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/setup.sh
. deploy/setup.sh

ensure_tools cc redis-server redis-benchmark initdb postgres pgbench haproxy pgbouncer nutcracker
# Without it system calls are not counted; not every system has it under this name.
(ensure_tools perf) || say 'going on without perf'
ensure_cargo
# Idle clients take two descriptors each in the proxy that they go through.
ulimit -n "$(ulimit -Hn)"
cargo build --quiet --release --package fusewire --bin fusewire
cargo build --quiet --package proto-tests --bin bench --release
FUSEWIRE_BIN=$(cd "${CARGO_TARGET_DIR:-target}/release" && pwd)/fusewire
export FUSEWIRE_BIN
exec "${CARGO_TARGET_DIR:-target}/release/bench" "$@"
