#!/usr/bin/env bash
# Mixed load with a fault a minute, and figures that must stay flat: proto-tests/soak.sh [1h] [--every 60s] [--pace 50ms] [--seed N].
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=proto-tests/chaos/setup.sh
. proto-tests/chaos/setup.sh
alone soak "$@"
