#!/usr/bin/env bash
# Real servers fail in every way they know while checkers work through fusewire: proto-tests/chaos.sh [--for 10m] [--seed N]
# [--span 1s]. As root it runs in a network namespace of its own, where a network can be cut as well.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=proto-tests/chaos/setup.sh
. proto-tests/chaos/setup.sh
alone chaos "$@"
