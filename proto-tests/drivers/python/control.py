"""What every driver script shares: where things are, the proxy's admin API, and the server's life and death.

The Rust test that runs a script owns the server. A script asks it for a crash or a restart with a line on standard
output and reads `done` from standard input. All else that it prints is for the log. Scripts await events; the
deadline of `eventually` only turns a hang into a failure that says what was seen last.
"""

import json
import os
import sys
import time
import urllib.parse
import urllib.request
from collections import Counter

PATIENCE = 30.0
BACKEND = "it"


def _address(name):
    host, _, port = os.environ[name].rpartition(":")
    return host, int(port)


SERVER = _address("DRIVER_SERVER")
PROXY = _address("DRIVER_PROXY")
ADMIN = os.environ["DRIVER_ADMIN"]


def say(*words):
    print(*words, flush=True)


def _ask(request):
    say("!" + request)
    answer = sys.stdin.readline().strip()
    assert answer == "done", f"{request}: {answer!r}"


def kill():
    """kill -9 for the server; returns when it is gone."""
    _ask("kill")


def restart():
    """Starts the server again on its port; returns when it answers."""
    _ask("restart")


def _http(method, path):
    request = urllib.request.Request(f"http://{ADMIN}{path}", method=method, data=b"" if method == "POST" else None)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=PATIENCE) as answer:
        return answer.read().decode()


def state():
    return json.loads(_http("GET", f"/api/v1/circuit-breaker/status/{BACKEND}"))["state"]


def trip():
    _http("POST", f"/api/v1/circuit-breaker/trip/{BACKEND}")
    assert state() == "open"


def reset():
    _http("POST", f"/api/v1/circuit-breaker/reset/{BACKEND}")
    assert state() == "closed"


def let_a_probe_through():
    """Ends the open state as its timer would: half-open, and the next call decides."""
    _http("POST", f"/api/v1/circuit-breaker/trip/{BACKEND}?for=1ms")
    eventually("the end of the open state", lambda: state() != "open")


def metric(name, **labels):
    """The sum of a metric over the samples that have these labels."""
    total = 0.0
    for line in _http("GET", "/metrics").splitlines():
        head, _, value = line.rpartition(" ")
        if head.partition("{")[0] == name and all(f'{key}="{text}"' in head for key, text in labels.items()):
            total += float(value)
    return int(total)


def accepted():
    """Connections that clients have made to the proxy so far."""
    return metric("fusewire_connections_total")


def dialled():
    """Connections that the proxy has tried to make to the server so far."""
    return metric("fusewire_upstream_connects_total")


def rejections():
    return metric("circuit_breaker_rejections_total")


def eventually(what, look):
    """Polls until `look` returns something true, and returns that."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}; last seen: {found!r}"
        time.sleep(0.01)


def error_of(call):
    """The exception that a call must raise."""
    try:
        value = call()
    except Exception as error:  # noqa: BLE001 - which one it is, is the question
        return error
    raise AssertionError(f"no error, but {value!r}")


def name_of(error):
    """`redis.exceptions.ResponseError`."""
    return f"{type(error).__module__}.{type(error).__qualname__}"


def check(yes, seen):
    """`assert` that also holds under `python -O` and says what was seen."""
    if not yes:
        raise AssertionError(seen)


def errors_until_open(call):
    """Calls a driver whose server is gone until the breaker is open; which errors it raised, and how often."""
    seen = Counter()

    def look():
        seen[name_of(error_of(call))] += 1
        return state() == "open"

    eventually("an open breaker", look)
    return dict(seen)


def same_answers(table, open_client, close):
    """Runs a table of (name, operation) against the server and through the proxy; the answers must be equal."""
    answers = {}
    for where in (SERVER, PROXY):
        client = open_client(where)
        answers[where] = {name: _answer(operation, client) for name, operation in table}
        close(client)
    for name, _ in table:
        direct, through = answers[SERVER][name], answers[PROXY][name]
        check(direct == through, f"{name}: {direct!r} direct, {through!r} through the proxy")
    say(f"same answers: {len(table)} operations")
    return answers[PROXY]


def _answer(operation, client):
    try:
        return repr(operation(client))
    except Exception as error:  # noqa: BLE001 - the same error on both sides is what is checked
        return f"{name_of(error)}: {error}"
