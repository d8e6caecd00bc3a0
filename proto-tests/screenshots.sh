#!/usr/bin/env bash
# Takes the pictures of the dashboard in docs/images/: screenshots.sh [SECONDS of traffic before them, 150 if left out].
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/setup.sh
. deploy/setup.sh

ensure_tools cc redis-server initdb postgres chromium chromedriver
ensure_cargo
cargo build --quiet --package fusewire --bin fusewire
cargo run --quiet --package proto-tests --bin screenshots -- docs/images "$@"
