#!/usr/bin/env bash
# Does what deploy/Dockerfile does, without a container engine: runs its RUN instruction on what .dockerignore lets in, and
# starts what comes of it in an empty root, as its user, without a capability, in a network with a name server of its own.
# As root, on Linux; the build takes some minutes. What a container engine would add and this does not show: that its base image
# exists and holds the compiler.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/setup.sh
. deploy/setup.sh

if [ "${1:-}" != inside ]; then
    [ "$(id -u)" = 0 ] || die "only root can change its root"
    ensure_tools cc redis-server redis-cli ip update-ca-certificates
    ensure_cargo
    # The context and the cache are kept from one run to the next.
    work=target/image
    mkdir -p $work/build
    find $work/build -mindepth 1 -maxdepth 1 ! -name target -exec rm -rf {} +
    rm -rf $work/root
    for name in $(sed -n 's/^!//p' .dockerignore); do
        mkdir -p "$work/build/$(dirname "$name")"
        cp -r "$name" "$work/build/$(dirname "$name")/"
    done
    root=$PWD/$work/root
    # From RUN to the first line that does not go on; mounts are the engine's business.
    command=$(sed -n '/^RUN /,/[^\\]$/p' deploy/Dockerfile | sed -E 's/^RUN //; s/--mount=[^ ]+//; s#/image/#'"$root"'/#g')
    say "building"
    (cd $work/build && env -u CARGO_TARGET_DIR bash -euo pipefail -c "$command") >$work/log 2>&1 || die "$(tail -n 20 $work/log)"
    binary=$root/usr/bin/fusewire
    ! ldd "$binary" 2>/dev/null | grep -q '=>' || die "it is not static: $(ldd "$binary")"
    say "the image: $(du -sk "$root" | cut -f 1) KiB"
    exec unshare --net --pid --fork --kill-child --mount-proc bash "$0" inside "$root"
fi

# ---- in the network of its own ----

root=$2
ip link set lo up
printf 'nameserver 127.0.0.1\n' >"$root/etc/resolv.conf"
printf '127.0.0.1 by-hosts\n' >"$root/etc/hosts"
redis-server --port 6379 --bind 127.0.0.1 --save "" --appendonly no >/dev/null &
# A name server that knows one address for every name, and no IPv6.
python3 -c '
import socket, struct
port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
port.bind(("127.0.0.1", 53))
while True:
    query, client = port.recvfrom(512)
    end = 12
    while query[end]:
        end += query[end] + 1
    question, kind = query[12:end + 5], query[end + 1:end + 3]
    found = kind == b"\0\1"
    answer = b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\x7f\0\0\1" if found else b""
    header = query[:2] + b"\x81\x80" + struct.pack(">HHHH", 1, found, 0, 0)
    port.sendto(header + question + answer, client)
' &
await 30 Redis redis-cli ping
await 30 "the name server" grep -q ':0035 ' /proc/net/udp
# As the engine does: the entry point, the user of the image, no capability.
chroot --userspec=65532:65532 "$root" /usr/bin/fusewire --admin 127.0.0.1:9900 \
    --redis name=dns,listen=127.0.0.1:6380,upstream=redis.example:6379 \
    --redis name=hosts,listen=127.0.0.1:6381,upstream=by-hosts:6379 2>"$root/../log" &
fusewire=$!
await 30 fusewire chroot --userspec=65532:65532 "$root" /usr/bin/fusewire status
for port in 6380 6381; do
    answer=$(redis-cli -p $port PING)
    [ "$answer" = PONG ] || die "port $port: $answer; $(cat "$root/../log")"
done
grep -q '^CapEff:.0000000000000000$' "/proc/$fusewire/status" || die "it has a capability"
grep -q '^Uid:.65532.65532.65532.65532$' "/proc/$fusewire/status" || die "it is another user"
kill -TERM $fusewire
wait $fusewire || die "exit code $?"
say "it answers, finds its servers by DNS and by /etc/hosts, and ends with 0"
