#!/usr/bin/env bash
# Fuzzes everything that reads what strangers write: fuzz.sh [SECONDS [TARGET...]], each target for so many seconds
# (60 if left out). What breaks a promise ends in target/fuzz/artifacts/ and makes the command fail. With MERGE=1 the kept
# corpora (proto-tests/fuzz/corpus) are then replaced by the smallest inputs that reach as much.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/setup.sh
. deploy/setup.sh

seconds=${1:-60}
shift || true
ensure_tools cc
[ -n "$(command -v c++)" ] || apt_install g++
ensure_cargo
tools=${CARGO_TARGET_DIR:-target}/fuzz
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
PATH=$tools/tools/bin:$PATH
cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet --locked --root "$tools/tools" cargo-fuzz

fuzz=$PWD/proto-tests/fuzz
[ $# -gt 0 ] || set -- $(cd "$fuzz/targets" && printf '%s\n' *.rs | sed 's/\.rs$//')
# The coverage counters are all that is needed of a nightly toolchain, and the stable one has them.
export RUSTC_BOOTSTRAP=1
cargo fuzz build --fuzz-dir "$fuzz" --target-dir "$tools" --sanitizer none
programs=$tools/$(rustc -vV | sed -n 's/^host: //p')/release

status=0
for target in "$@"; do
    kept=$fuzz/corpus/$target work=$tools/corpus/$target artifacts=$tools/artifacts/$target/
    mkdir -p "$kept" "$work" "$artifacts"
    words=$fuzz/dictionaries/${target%%_*}.dict
    options=(-max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$artifacts" -verbosity=0)
    case $target in admin_* | config_*) options+=(-max_len=4096) ;; *) options+=(-max_len=1024) ;; esac
    [ ! -e "$words" ] || options+=(-dict="$words")
    if nice -n 19 "$programs/$target" "$work" "$kept" "${options[@]}" >"$tools/$target.log" 2>&1 </dev/null; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$tools/$target.log")
        printf '%-18s %12s executions in %s s, nothing found\n' "$target" "${runs:-0}" "$seconds"
    else
        status=1
        printf '%-18s FOUND SOMETHING, or failed; the end of %s:\n' "$target" "$tools/$target.log"
        tail -n 40 "$tools/$target.log"
    fi
    if [ "${MERGE:-}" = 1 ]; then
        rm -rf "$tools/merged" && mkdir "$tools/merged"
        "$programs/$target" "$tools/merged" "$kept" "$work" -merge=1 -max_len=1024 -verbosity=0 >"$tools/$target.merge.log" 2>&1 </dev/null
        rm -rf "$kept" && mkdir "$kept"
        # The smallest first, and no more than can be kept in a repository.
        find "$tools/merged" -type f -printf '%s %p\n' | sort -n | head -n "${KEEP:-120}" | cut -d' ' -f2- | xargs -r cp -t "$kept"
    fi
done
exit $status
