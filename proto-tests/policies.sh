#!/usr/bin/env bash
# Compares the trip policies before a real Redis with faults, and writes the table into docs/POLICIES.md. Takes two minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/setup.sh
. deploy/setup.sh

ensure_tools cc redis-server
ensure_cargo
cargo build --quiet --package fusewire --bin fusewire
cargo run --quiet --package proto-tests --bin policies -- docs/POLICIES.md
