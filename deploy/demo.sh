#!/usr/bin/env bash
# Shows what fusewire does, with private instances of Redis and Postgres and their own clients.
#
#   deploy/demo.sh          tells the story, then leaves everything running until Ctrl-C
#   deploy/demo.sh --once   tells it, checks every claim, exits (0: all true)
#
# Everything lives in one temporary folder; no process outlives this script.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/setup.sh
. deploy/setup.sh

case "${1:-}" in
"") once= ;;
--once) once=1 ;;
*) die "usage: deploy/demo.sh [--once]" ;;
esac

# ---------------------------------------------------------------- set-up

ensure_tools curl redis-server redis-cli initdb postgres psql setpriv
if [ -n "${FUSEWIRE_BIN:-}" ]; then
    fusewire=$FUSEWIRE_BIN
else
    # cargo downloads crates: it needs a linker and certificates.
    ensure_tools cc update-ca-certificates
    ensure_cargo
    say "building fusewire (cargo build --release)"
    cargo build --release --quiet --package fusewire
    fusewire=${CARGO_TARGET_DIR:-target}/release/fusewire
fi
# Settings of the caller's shell are not part of the story.
for variable in "${!FUSEWIRE_@}" "${!PG@}"; do unset "$variable"; done
export LC_ALL=C
psql=$(find_tool psql) postgres=$(find_tool postgres) initdb=$(find_tool initdb)

folder=$(mktemp -d "${TMPDIR:-/tmp}/fusewire-demo.XXXXXX")
redis_pid= postgres_pid= fusewire_pid= traffic_pid= session_pid=
failed=0

kill_postgres() {
    [ -n "$postgres_pid" ] || return 0
    # Stopped first, it cannot start another child while its children are being listed.
    kill -STOP "$postgres_pid" 2>/dev/null || true
    local children
    children=$(children_of "$postgres_pid")
    # shellcheck disable=SC2086 # a list of process ids
    kill -KILL "$postgres_pid" $children 2>/dev/null || true
    wait "$postgres_pid" 2>/dev/null || true
    postgres_pid=
}

cleanup() {
    trap - EXIT INT TERM
    local pid
    for pid in $traffic_pid $session_pid $fusewire_pid $redis_pid; do
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    kill_postgres
    rm -rf "$folder"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

free_port && redis_port=$free_port_result
free_port && postgres_port=$free_port_result
free_port && cache_port=$free_port_result
free_port && db_port=$free_port_result
free_port && admin_port=$free_port_result
api=http://127.0.0.1:$admin_port/api/v1/circuit-breaker

# Postgres refuses to run as root.
as_postgres=()
if [ "$(id -u)" = 0 ]; then
    user=postgres
    id $user >/dev/null 2>&1 || user=nobody
    as_postgres=(setpriv "--reuid=$user" "--regid=$(id -g $user)" --clear-groups)
    chown $user "$folder"
fi

start_redis() {
    redis-server --port "$redis_port" --bind 127.0.0.1 --save "" --appendonly no --dir "$folder" >>"$folder/redis.log" 2>&1 &
    redis_pid=$!
    await 30 Redis redis-cli -p "$redis_port" ping
}

start_postgres() {
    "${as_postgres[@]}" "$postgres" -D "$folder/data" -p "$postgres_port" -c listen_addresses=127.0.0.1 -k "$folder" \
        -c fsync=off -c shared_buffers=16MB >>"$folder/postgres.log" 2>&1 &
    postgres_pid=$!
    await 30 Postgres sql "$postgres_port" 'SELECT 1'
}

# sql PORT QUERY
sql() {
    PGCONNECT_TIMEOUT=20 "$psql" -X -q -A -t -h 127.0.0.1 -p "$1" -U postgres -d postgres -c "$2"
}

# ---------------------------------------------------------------- telling and checking

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'; else bold= dim= green= red= plain=; fi

title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
quote() { sed "s/^/    $dim|$plain /"; }

# check WHAT ACTUAL EXPECTED
check() {
    if [ "$2" = "$3" ]; then
        printf '  %s✓%s %s: %s\n' "$green" "$plain" "$1" "$2"
    else
        printf '  %s✗%s %s: %s, expected %s\n' "$red" "$plain" "$1" "${2:-nothing}" "$3"
        failed=1
    fi
}

# says TEXT WORDS...: every one of the words occurs in the text.
says() {
    local text=$1 word
    shift
    for word in "$@"; do
        case $text in *"$word"*) ;; *)
            printf '  %s✗%s "%s" is not in: %s\n' "$red" "$plain" "$word" "$text"
            failed=1
            ;;
        esac
    done
}

# status NAME KEY: a number or word from a breaker's status.
status() {
    curl -fsS "$api/status/$1" | tr -d '\n' | grep -oE "\"$2\": *(\"[^\"]*\"|[0-9]+)" | head -n 1 |
        sed -E 's/^"[^"]*": *//; s/"//g'
}

# metric NAME BACKEND: the sum of a metric's samples.
metric() {
    curl -fsS "http://127.0.0.1:$admin_port/metrics" |
        awk -v name="$1{" -v label="backend=\"$2\"" \
            'index($0, name) == 1 && index($0, label) { sum += $NF } END { print sum + 0 }'
}

is_state() { [ "$(status "$1" state)" = "$2" ]; }

# ---------------------------------------------------------------- the story

title "Starting a private Redis, a private Postgres, and fusewire in front of both"
start_redis
"${as_postgres[@]}" "$initdb" -N -A trust -U postgres -E UTF8 --locale=C -D "$folder/data" >"$folder/initdb.log" 2>&1 ||
    die "initdb: $(cat "$folder/initdb.log")"
start_postgres
"$fusewire" run \
    --redis "name=cache,listen=127.0.0.1:$cache_port,upstream=127.0.0.1:$redis_port" \
    --postgres "name=db,listen=127.0.0.1:$db_port,upstream=127.0.0.1:$postgres_port" \
    --recovery-timeout 5s --handshake-timeout 1s --admin "127.0.0.1:$admin_port" >>"$folder/fusewire.log" 2>&1 &
fusewire_pid=$!
until curl -fsS "http://127.0.0.1:$admin_port/readyz" >/dev/null 2>&1; do
    kill -0 "$fusewire_pid" 2>/dev/null || die "fusewire ended: $(tail -n 5 "$folder/fusewire.log")"
    sleep 0.05
done
say "  clients → 127.0.0.1:$cache_port → Redis    127.0.0.1:$redis_port   (backend 'cache')"
say "  clients → 127.0.0.1:$db_port → Postgres 127.0.0.1:$postgres_port   (backend 'db')"
say "  dashboard http://127.0.0.1:$admin_port/"

cache() { redis-cli -p "$cache_port" "$@" 2>&1 || true; }
db() { sql "$db_port" "$1" 2>&1 || true; }

title "1. All is well: calls pass, nobody notices fusewire"
check "redis-cli SET greeting hello" "$(cache SET greeting hello)" OK
check "redis-cli GET greeting" "$(cache GET greeting)" hello
check "psql SELECT 6 * 7" "$(db 'SELECT 6 * 7')" 42
check "breakers" "$(status cache state), $(status db state)" "closed, closed"

title "2. Redis dies (kill -9): exactly five failures open the breaker"
{ kill -KILL "$redis_pid" && wait "$redis_pid"; } 2>/dev/null || true
redis_pid=
for n in 1 2 3 4 5; do
    check "state before call $n" "$(status cache state)" closed
    cache GET greeting | quote
done
check "state after five failures" "$(status cache state)" open

title "3. While it is open, the answer comes at once and says why"
answer=$(cache GET greeting)
quote <<<"$answer"
says "$answer" "CIRCUITOPEN backend 'cache' is open (connection refused, 5 consecutive failures); retry after "
rejections=2000
started=${EPOCHREALTIME/./}
answers=$(redis-cli -p "$cache_port" -r $rejections GET greeting 2>&1 | grep -c '^CIRCUITOPEN ' || true)
each=$(((${EPOCHREALTIME/./} - started) / rejections))
check "rejections on one connection" "$answers" $rejections
say "  each took $each µs, redis-cli's own work included"
check "well under a millisecond" "$([ $each -lt 1000 ] && echo yes || echo no)" yes
check "failed calls in the status" "$(status cache failed_calls)" 5
check "circuit_breaker_failures_total" "$(metric circuit_breaker_failures_total cache)" 5
check "circuit_breaker_rejections_total" "$(metric circuit_breaker_rejections_total cache)" $((rejections + 1))
check "circuit_breaker_state (2 is open)" "$(metric circuit_breaker_state cache)" 2
check "Postgres is not affected" "$(status db state)" closed

title "4. Redis comes back: the breaker goes half-open by itself, one probe closes it"
start_redis
await 30 "half-open" is_state cache half_open
check "state, without any traffic" "$(status cache state)" half_open
check "the probe: redis-cli PING" "$(cache PING)" PONG
check "state" "$(status cache state)" closed
check "circuit_breaker_probes_total" "$(metric circuit_breaker_probes_total cache)" 1
check "circuit_breaker_state" "$(metric circuit_breaker_state cache)" 0

title "5. Postgres hangs (SIGSTOP): it still accepts connections but answers nothing"
# A session that stays open through it all.
mkfifo "$folder/session.in"
"$psql" -X -q -A -t -h 127.0.0.1 -p "$db_port" -U postgres -d postgres <"$folder/session.in" >>"$folder/session.out" 2>&1 &
session_pid=$!
exec 9>"$folder/session.in"
# ask SQL: one question in that session; its answer is what was printed before the marker.
ask() {
    : >"$folder/session.out"
    printf '%s;\n\\echo done\n' "$1" >&9
    await 30 "the session's answer" grep -q '^done$' "$folder/session.out"
    grep -v '^done$' "$folder/session.out" || true
}
backend=$(ask 'SELECT pg_backend_pid()')
frozen=$(children_of "$postgres_pid")
# shellcheck disable=SC2086 # a list of process ids
kill -STOP "$postgres_pid" $frozen
calls=()
for n in 1 2 3 4 5; do
    sql "$db_port" 'SELECT 1' >"$folder/hang.$n" 2>&1 &
    calls+=($!)
done
for call in "${calls[@]}"; do wait "$call" || true; done
quote <"$folder/hang.1"
check "state after five unanswered connections" "$(status db state)" open
answer=$(db 'SELECT 1')
quote <<<"$answer"
says "$answer" "FATAL:  backend 'db' is open (no reply in time, 5 consecutive failures)" "retry after "
say "  a session that was already open reads an error too, and stays open:"
answer=$(ask 'SELECT 1')
quote <<<"$answer"
says "$answer" "ERROR:  backend 'db' is open (no reply in time, 5 consecutive failures)" "retry after "
# shellcheck disable=SC2086 # a list of process ids
kill -CONT "$postgres_pid" $frozen
await 30 "half-open" is_state db half_open
check "Postgres goes on; the probe" "$(db 'SELECT 6 * 7')" 42
check "state" "$(status db state)" closed
check "the same session, the same server process" "$(ask 'SELECT pg_backend_pid()')" "$backend"
exec 9>&-
wait "$session_pid" 2>/dev/null || true
session_pid=

title "6. Postgres dies (kill -9): psql prints the cause and when to come back"
kill_postgres
before=$(metric circuit_breaker_failures_total db)
for n in 1 2 3 4 5; do db 'SELECT 1' >"$folder/dead.$n"; done
quote <"$folder/dead.5"
check "failures" $(($(metric circuit_breaker_failures_total db) - before)) 5
check "state after five failures" "$(status db state)" open
answer=$(db 'SELECT 1')
quote <<<"$answer"
says "$answer" "FATAL:  backend 'db' is open (connection refused, 5 consecutive failures)" "retry after "
check "circuit_breaker_state" "$(metric circuit_breaker_state db)" 2
start_postgres
await 30 "half-open" is_state db half_open
check "Postgres is back; the probe" "$(db 'SELECT 6 * 7')" 42
check "state" "$(status db state)" closed
check "circuit_breaker_trips_total" "$(metric circuit_breaker_trips_total cache), $(metric circuit_breaker_trips_total db)" "1, 2"

title "What fusewire logged about it"
grep -F 'transitioned' "$folder/fusewire.log" | quote

if [ -n "$once" ]; then
    kill -TERM "$fusewire_pid"
    stopped=0
    wait "$fusewire_pid" || stopped=$?
    fusewire_pid=
    check "exit code of fusewire after SIGTERM" $stopped 0
    if [ $failed != 0 ]; then
        title "Some checks FAILED."
        exit 1
    fi
    title "All checks passed."
    exit 0
fi

# A little traffic, so that the dashboard has something to show.
(
    while :; do
        redis-cli -p "$cache_port" INCR visits
        sql "$db_port" 'SELECT count(*) FROM pg_class'
        sleep 0.5
    done
) >/dev/null 2>&1 9>&- &
traffic_pid=$!
title "It all keeps running now. Try it:"
say "  dashboard     http://127.0.0.1:$admin_port/"
say "  Redis         redis-cli -p $cache_port"
say "  Postgres      psql -h 127.0.0.1 -p $db_port -U postgres"
say "  kill Redis    kill -9 $redis_pid"
say "  freeze it     kill -STOP $redis_pid; later: kill -CONT $redis_pid"
say "  status        curl -s $api/status"
say ""
say "Ctrl-C ends everything."
wait "$fusewire_pid"
