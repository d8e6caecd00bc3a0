#!/usr/bin/env bash
# Counts the instructions that a call takes on each hot path, under valgrind, and compares with the recorded ones in
# proto-tests/instructions.txt: exit code 1 if a path takes over 3 % more. instructions.sh --record writes them anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/setup.sh
. deploy/setup.sh

ensure_tools cc valgrind
ensure_cargo
recorded=proto-tests/instructions.txt
binary=$(cargo bench --quiet --package proto-tests --bench instructions --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*instructions-[^"]*\)".*/\1/p')
[ -x "$binary" ] || die "the program that runs the paths was not built"

# The instructions of so many runs of a path, the program's start included.
count() {
    local log
    log=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "$binary" "$1" "$2" 2>&1) || die "$log"
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p' <<<"$log"
}

out=$(mktemp)
trap 'rm -f "$out"' EXIT
status=0
printf '%-28s %12s %12s %8s\n' path instructions recorded change
while read -r path calls runs; do
    none=$(count "$path" 0)
    some=$(count "$path" "$runs")
    per_call=$(((some - none) / (runs * calls)))
    printf '%s %s\n' "$path" "$per_call" >>"$out"
    was=$(sed -n "s|^$path ||p" "$recorded" 2>/dev/null || true)
    if [ -z "$was" ]; then
        printf '%-28s %12d %12s\n' "$path" "$per_call" none
        continue
    fi
    change=$(awk "BEGIN { printf \"%+.1f\", ($per_call - $was) * 100 / $was }")
    printf '%-28s %12d %12d %7s%%\n' "$path" "$per_call" "$was" "$change"
    if awk "BEGIN { exit !($change > 3) }"; then status=1; fi
done < <("$binary")
if [ "${1:-}" = --record ]; then
    cp "$out" "$recorded"
    say "recorded in $recorded"
    exit 0
fi
[ $status = 0 ] || say "a path takes over 3 % more instructions than recorded"
exit $status
