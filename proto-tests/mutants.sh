#!/usr/bin/env bash
# Puts deliberate bugs into a copy of the tree and demands that their tests catch them: mutants.sh [WORD...]
# runs all of proto-tests/mutants.toml, or those whose names contain one of the words.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/setup.sh
. deploy/setup.sh

ensure_tools cc
ensure_cargo
cargo build --quiet --package proto-tests --bin mutants
exec "${CARGO_TARGET_DIR:-target}/debug/mutants" "$@"
