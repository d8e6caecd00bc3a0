#!/usr/bin/env bash
# package.sh [PACKAGE]: builds the Debian package, unless one is named, installs it in a Debian of its own and boots that
# (systemd-nspawn): starts the hardened service, reloads it, freezes it, passes it a socket, restarts it under a client and
# removes it. As root, on Linux, for some minutes. Of this machine nothing is changed but for packages that it needs and /var/tmp,
# where the Debian is kept for the next time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/setup.sh
. deploy/setup.sh

[ "$(id -u)" = 0 ] || die "only root can boot a system"
ensure_tools debootstrap systemd-nspawn
package=${1:-$(deploy/package.sh | tail -n 1)}
say "$package: $(($(stat -c %s "$package") / 1024)) KiB"

# A small Debian with systemd and a Redis, made once and copied for each run.
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
base=/var/tmp/fusewire-debian-$suite
if [ ! -e "$base/complete" ]; then
    say "making a Debian $suite in $base"
    rm -rf "$base"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,curl,procps,redis-server "$suite" "$base" >"$base.log" 2>&1 ||
        die "debootstrap: $(tail -n 3 "$base.log")"
    touch "$base/complete"
fi
work=$(mktemp -d /var/tmp/fusewire-package.XXXXXX)
tree=$work/tree nspawn='' init='' failed=0
cleanup() {
    trap - EXIT INT TERM
    if [ -n "$nspawn" ]; then
        kill -TERM "$nspawn" 2>/dev/null || true
        wait "$nspawn" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cp -a "$base" "$tree"
cp "$package" "$tree/fusewire.deb"

# The system runs in namespaces of its own, without a network but loopback.
systemd-nspawn --directory="$tree" --boot --register=no --keep-unit --private-network --console=pipe </dev/null >"$work/log" 2>&1 &
nspawn=$!
find_init() { init=$(pgrep -P "$nspawn") && [ "$(cat "/proc/$init/comm")" = systemd ]; }
await 30 "systemd" find_init
in_system() { nsenter --target "$init" --all "$@"; }
is_up() { in_system systemctl is-system-running --quiet && in_system redis-cli PING; }
await 60 "the system and its Redis" is_up

# check WHAT ACTUAL EXPECTED
check() {
    if [ "$2" = "$3" ]; then
        say "  ok  $1: $2"
    else
        say "  NOT $1: ${2:-nothing}, expected $3"
        failed=1
    fi
}
state() { in_system systemctl is-active "$1" || true; }
main_pid() { in_system systemctl show --property=MainPID --value fusewire; }

say "installing it"
in_system env DEBIAN_FRONTEND=noninteractive dpkg --install /fusewire.deb >"$work/dpkg" 2>&1 || die "dpkg: $(cat "$work/dpkg")"
check "not started before it is configured" "$(state fusewire)" inactive
check "its user" "$(in_system id -un fusewire)" fusewire
check "its configuration" "$(in_system fusewire check --config /etc/fusewire/fusewire.toml >&2 && echo valid)" valid
check "its man page" "$(in_system sh -c 'test -s /usr/share/man/man1/fusewire.1.gz && echo there')" there

say "the service, as hardened as its unit says"
in_system systemctl start fusewire
check "started" "$(state fusewire)" active
check "a call" "$(in_system redis-cli -p 6380 PING)" PONG
check "the process's user" "$(in_system ps -o user= -p "$(main_pid)")" fusewire
check "its capabilities" "$(in_system awk '/^CapEff/ { print $2 }' "/proc/$(main_pid)/status")" 0000000000000000
check "its seccomp filter (2 is on)" "$(in_system awk '/^Seccomp:/ { print $2 }' "/proc/$(main_pid)/status")" 2
check "figures of the process" "$(in_system curl -fsS 127.0.0.1:9900/metrics | grep -c '^process_')" 5
say "     $(in_system systemd-analyze security fusewire --no-pager | tail -n 1)"
before=$(main_pid)
in_system systemctl reload fusewire
reloaded() { in_system curl -fsS 127.0.0.1:9900/metrics | grep -q '^fusewire_config_reloads_total{result="success"} 1'; }
await 10 "the reload" reloaded
check "the same process after a reload" "$(main_pid)" "$before"

say "the watchdog"
mkdir -p "$tree/etc/systemd/system/fusewire.service.d"
printf '[Service]\nWatchdogSec=1s\n' >"$tree/etc/systemd/system/fusewire.service.d/watchdog.conf"
in_system systemctl daemon-reload
in_system systemctl restart fusewire
before=$(main_pid)
in_system kill -STOP "$before"
another() { local now && now=$(main_pid) && [ "$now" != 0 ] && [ "$now" != "$before" ] && in_system redis-cli -p 6380 PING; }
await 30 "another process in place of a frozen one" another
check "a call" "$(in_system redis-cli -p 6380 PING)" PONG

say "a socket of systemd's"
in_system systemctl stop fusewire
in_system systemctl start fusewire@redis.socket
socket=/run/fusewire/redis.sock
check "a client starts the service" "$(in_system redis-cli -s $socket PING)" PONG
for _ in $(seq 40); do in_system redis-cli -s $socket INCR n; done >"$work/calls" 2>&1 &
client=$!
in_system systemctl restart fusewire
in_system systemctl restart fusewire
wait $client
check "calls answered across two restarts" "$(tail -n 1 "$work/calls")" 40
in_system systemctl stop fusewire@redis.socket fusewire 2>/dev/null
check "the end" "$(in_system systemctl show --property=Result --value fusewire)" success

say "removing it"
in_system systemctl start fusewire
in_system env DEBIAN_FRONTEND=noninteractive dpkg --purge fusewire >"$work/dpkg" 2>&1 || die "dpkg: $(cat "$work/dpkg")"
check "stopped" "$(state fusewire)" inactive
check "its files" "$(in_system sh -c 'ls /usr/bin/fusewire /etc/fusewire/fusewire.toml /lib/systemd/system/fusewire.service 2>/dev/null | wc -l')" 0
[ "$failed" = 0 ] || die "not everything was as expected"
say "all as expected"
