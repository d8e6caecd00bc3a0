"""What every Redis driver must live through, told once; each driver script supplies the driver.

A driver has `open(address, db=0)`, `close(client)`, `command(client, *words)` and says in `refused` which exception a
rejection is, in `refused_new` which one on a connection that is made while the breaker is open.
"""

import re
import socket

from control import (
    PROXY,
    SERVER,
    accepted,
    check,
    dialled,
    error_of,
    errors_until_open,
    eventually,
    kill,
    let_a_probe_through,
    name_of,
    rejections,
    reset,
    restart,
    say,
    state,
    trip,
)

REJECTION = re.compile(r"^CIRCUITOPEN backend 'it' is open \(.+\)")


def direct(*words):
    """One command past the proxy, in the plainest form, so that no driver judges itself."""
    with socket.create_connection(SERVER) as raw:
        raw.sendall("".join(f"{word}\r\n" for word in words + ("QUIT",)).encode())
        text = b""
        while piece := raw.recv(65536):
            text += piece
    return text.decode().removesuffix("+OK\r\n")


def keys_of(db):
    """DBSIZE of a database, at the server."""
    return int(direct(f"SELECT {db}", "DBSIZE").rpartition(":")[2])


def check_refused(error, expected):
    check(name_of(error) in expected, f"{name_of(error)}: {error}")
    check(REJECTION.search(str(error)), f"{name_of(error)}: {error}")


def refused_by_hand(driver):
    client = driver.open(PROXY)
    driver.command(client, "SET", "k", "v")
    me = driver.command(client, "CLIENT", "ID")
    clients, dials, refusals = accepted(), dialled(), rejections()
    trip()
    for _ in range(10):
        check_refused(error_of(lambda: driver.command(client, "GET", "k")), driver.refused)
    check(accepted() == clients, f"{accepted() - clients} reconnects for ten rejected calls")
    check(rejections() - refusals == 10, f"{rejections() - refusals} rejections for ten calls: something was retried")

    refusals = rejections()
    other = driver.open(PROXY)
    error = error_of(lambda: driver.command(other, "GET", "k"))
    say(f"new connection while open: {name_of(error)}: {error}")
    say(f"  {accepted() - clients} connections, {rejections() - refusals} rejections")
    check_refused(error, driver.refused_new)
    check(accepted() - clients == 1, f"{accepted() - clients} connections for one refused call")
    for _ in range(10):
        check_refused(error_of(lambda: driver.command(other, "GET", "k")), driver.refused_new)
    say(f"  {accepted() - clients} connections after ten more calls")
    check(accepted() - clients <= 11, f"{accepted() - clients} connections for eleven refused calls")
    check(dialled() == dials, "an open breaker dialled")

    reset()
    check(driver.command(client, "GET", "k") == b"v", "another value")
    check(driver.command(client, "CLIENT", "ID") == me, "another connection")
    check(driver.command(other, "GET", "k") == b"v", "another value")
    driver.close(client)
    driver.close(other)
    say("refused by hand: kept")


def refused_after_a_crash(driver):
    client = driver.open(PROXY)
    driver.command(client, "SET", "k", "v")
    kill()
    before = accepted()
    say(f"crash: {errors_until_open(lambda: driver.command(client, 'GET', 'k'))}, {accepted() - before} connections")
    before, dials = accepted(), dialled()
    for _ in range(10):
        check_refused(error_of(lambda: driver.command(client, "GET", "k")), driver.refused + driver.refused_new)
    say(f"after the crash: {accepted() - before} connections for ten refused calls")
    check(accepted() - before <= 10, f"{accepted() - before} connections for ten refused calls")
    check(dialled() == dials, "an open breaker dialled")
    restart()
    let_a_probe_through()
    check(driver.command(client, "GET", "k") is None, "the restarted server is empty")
    check(driver.command(client, "SET", "k", "v2") == b"OK", "no OK")
    check(state() == "closed", state())
    driver.close(client)
    say("recovered after the crash")


def right_database(driver):
    """Nothing that a client of database 3 writes may land in another one, whatever was rejected meanwhile."""
    direct("FLUSHALL")
    old = driver.open(PROXY, db=3)
    driver.command(old, "SET", "old", "0")
    written = {"old"}

    def write(client, key):
        try:
            driver.command(client, "SET", key, "1")
        except Exception:  # noqa: BLE001 - whatever the driver calls it
            return False
        written.add(key)
        return True

    for turn in range(10):
        trip()
        check(not write(old, f"refused-{turn}"), "a write while open")
        new = driver.open(PROXY, db=3)
        check(not write(new, f"refused-new-{turn}"), "a write while open")
        reset()
        check(write(old, f"old-{turn}"), "a client that was there before the trip")
        # A driver may notice only with its next call that a connection has ended.
        eventually("a client made while open", lambda: write(new, f"new-{turn}"))
        driver.close(new)
    check(keys_of(0) == 0, direct("KEYS *"))
    check(keys_of(3) == len(written), f"{keys_of(3)} keys, {len(written)} writes")

    kill()
    errors_until_open(lambda: driver.command(old, "SET", "lost", "1"))
    restart()
    written = set()
    let_a_probe_through()
    eventually("a write after the restart", lambda: write(old, "again"))
    for turn in range(10):
        check(write(old, f"after-{turn}"), "a write after the recovery")
    check(keys_of(0) == 0, direct("KEYS *"))
    check(keys_of(3) == len(written), f"{keys_of(3)} keys, {len(written)} writes")
    driver.close(old)
    say("right database")


def tell(driver):
    refused_by_hand(driver)
    refused_after_a_crash(driver)
    right_database(driver)
