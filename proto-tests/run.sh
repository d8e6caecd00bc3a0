#!/usr/bin/env bash
# Installs what the tests need, then checks formatting and lints, builds, and runs every test.
# Long output goes to target/test-logs/; a failure shows the end of its log.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/setup.sh
. deploy/setup.sh

ensure_tools cc curl update-ca-certificates redis-server redis-cli redis-benchmark initdb postgres pgbench psql pg_isready pgbouncer \
    chromium chromedriver prometheus promtool systemd-analyze ip jq
ensure_cargo
if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
    command -v rustup >/dev/null || die "cargo fmt or cargo clippy is missing"
    rustup component add rustfmt clippy
fi

logs=${CARGO_TARGET_DIR:-target}/test-logs
rm -rf "$logs"
mkdir -p "$logs"

# step NAME COMMAND...: one line when it passes, the end of its log when it does not.
step() {
    local name=$1 log=$logs/$1.log started=$SECONDS
    shift
    printf '%-8s %s\n' "$name" "$*"
    if "$@" >"$log" 2>&1 </dev/null; then
        printf '%-8s ok (%ss)\n' "$name" $((SECONDS - started))
    else
        local status=$?
        printf '\n%s FAILED with exit code %s; the end of %s:\n\n' "$name" $status "$log"
        tail -n 80 "$log"
        return $status
    fi
}

# In a shell of its own: inside `step` this one does not stop at an error.
# shellcheck disable=SC2016
step drivers bash -euo pipefail -c '. deploy/setup.sh && ensure_drivers "$1"' _ "${CARGO_TARGET_DIR:-target}/drivers"

# shellcheck disable=SC2016
step checks bash -euo pipefail -c '. deploy/setup.sh && ensure_validators "$1"' _ "${CARGO_TARGET_DIR:-target}/validators"
# shellcheck disable=SC2016
step tools bash -euo pipefail -c '. deploy/setup.sh && ensure_deny "$1"' _ "${CARGO_TARGET_DIR:-target}/deny"

# The test binaries and the proxy in one build, so that both are of the same code.
step fmt cargo fmt --all --check
step clippy cargo clippy --workspace --all-targets -- -D warnings
step build cargo build --workspace --all-targets
FUSEWIRE_BIN=$(cd "${CARGO_TARGET_DIR:-target}/debug" && pwd)/fusewire
export FUSEWIRE_BIN
cores=$(nproc)
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((cores < 4 ? cores : 4))}
status=0
step test timeout --kill-after=10 1200 cargo test --workspace --no-fail-fast || status=$?
step deny "${CARGO_TARGET_DIR:-target}/deny/bin/cargo-deny" --config .cargo-deny.toml check bans licenses sources || status=$?

echo
grep -E '^ +(Running|Doc-tests)|^test result:' "$logs/test.log" | sed -E 's/^ +//; s/ \(.*\)$//' || true
grep -E '^test .* FAILED$' "$logs/test.log" || true
awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
     END { printf "\ntotal: %d passed; %d failed; %d ignored\n", passed, failed, ignored }' "$logs/test.log"
if [ "$status" = 0 ]; then echo "all tests passed"; else echo "TESTS FAILED; see $logs/test.log"; fi
exit "$status"
