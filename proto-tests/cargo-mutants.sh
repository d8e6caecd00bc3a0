#!/usr/bin/env bash
# Tries every change that `cargo mutants` would make to some files, and demands that the tests of their module notice:
# cargo-mutants.sh [PATTERN...] takes patterns as `cargo mutants --file` does; without one, the breaker, the gate and the
# sessions. All changes are in one build, so that each costs a run of some tests and not a build: docs/adr/0025. The last
# lines count per file; what was missed, and all else, stands in target/sweep-outcomes.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/setup.sh
. deploy/setup.sh

[ $# -gt 0 ] || set -- 'src/breaker/**' 'src/gate.rs' 'src/gate/**' 'src/protocol/**'
ensure_tools cc
ensure_cargo
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/sweep-tools"
PATH=$(cd "$target/sweep-tools" && pwd)/bin:$PATH
cargo mutants --version >/dev/null 2>&1 || cargo install --quiet --locked --root "$target/sweep-tools" --version 27.1.0 cargo-mutants
cargo build --quiet --package proto-tests --bin sweep
exec "$target/debug/sweep" "$@"
