"""What every Postgres driver must live through, told once; each driver script supplies the driver.

A driver has `open(address)`, `close(client)` and `query(client, sql)` (rows as tuples). It says in `refused` which
exception a rejected query is and in `refused_new` which one a refused connection; `sqlstate(error)` finds the code,
None where the driver does not keep it. Exceptions in `silent` do not say why. A pool
finds a new connection by itself; its `open` takes a `setup` that is run on each new connection.
"""

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

SCHEMAS = ("public", "tenant_1", "tenant_2")


def check_refused(driver, error, expected, code):
    check(name_of(error) in expected, f"{name_of(error)}: {error}")
    if name_of(error) not in driver.silent:
        check("backend 'it' is open (" in _whole(error), f"{name_of(error)}: {_whole(error)}")
    # A pool that does not keep its connections has its queries refused first and its connections then.
    codes = (code, None) if driver.kept else ("57000", "57P03", None)
    check(driver.sqlstate(error) in codes, f"{driver.sqlstate(error)}: {error}")


def _whole(error):
    """The message with those of its causes: pools wrap what went wrong."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def pid_of(driver, client):
    return driver.query(client, "SELECT pg_backend_pid()")[0][0]


def refused_by_hand(driver):
    client = driver.open(PROXY)
    me = pid_of(driver, client)
    clients, dials, refusals = accepted(), dialled(), rejections()
    trip()
    for _ in range(10):
        error = error_of(lambda: driver.query(client, "SELECT 1"))
        check_refused(driver, error, driver.refused, "57000")
    say(f"refused query: {name_of(error)}, {driver.sqlstate(error)}: {error}")
    reconnects, refusals = accepted() - clients, rejections() - refusals
    say(f"  {reconnects} connections, {refusals} rejections for ten calls")
    check(reconnects <= driver.reconnects_of_ten, f"{reconnects} reconnects for ten rejected calls")
    if driver.kept:
        check(refusals == 10, f"{refusals} rejections for ten calls: something was retried")
        check(reconnects == 0, f"{reconnects} reconnects for ten rejected calls")

    clients = accepted()
    opened = []
    error = error_of(lambda: driver.query(opened.append(driver.open(PROXY)) or opened[0], "SELECT 1"))
    say(f"refused connection: {name_of(error)}, {driver.sqlstate(error)}: {error}")
    check_refused(driver, error, driver.refused_new, "57P03")
    say(f"  {accepted() - clients} connections")
    check(accepted() - clients <= driver.connects_of_one, f"{accepted() - clients} connections")
    check(dialled() == dials, "an open breaker dialled")
    reset()
    check(driver.query(client, "SELECT 42") == [(42,)], "another answer")
    if driver.kept:
        check(pid_of(driver, client) == me, "another connection")
    for other in opened:
        eventually("a query after the reset", lambda: _works(driver, other))
        driver.close(other)
    driver.close(client)
    say("refused by hand")


def refused_after_a_crash(driver):
    """Only a pool outlives the death of its server; so it is without a proxy."""
    client = driver.open(PROXY)
    driver.query(client, "SELECT 1")
    kill()
    before = accepted()
    say(f"crash: {errors_until_open(lambda: driver.query(client, 'SELECT 1'))}, {accepted() - before} connections")
    before, dials = accepted(), dialled()
    for _ in range(10):
        error = error_of(lambda: driver.query(client, "SELECT 1"))
        check_refused(driver, error, driver.refused + driver.refused_new, "57P03")
    say(f"after the crash: {name_of(error)}: {accepted() - before} connections for ten refused calls")
    check(accepted() - before <= 10 * driver.connects_of_one, f"{accepted() - before} connections")
    check(dialled() == dials, "an open breaker dialled")
    restart()
    let_a_probe_through()
    eventually("a query after the restart", lambda: _works(driver, client))
    check(state() == "closed", state())
    driver.close(client)
    say("recovered after the crash")


def _works(driver, client):
    try:
        return driver.query(client, "SELECT 42") == [(42,)]
    except Exception as error:  # noqa: BLE001 - the message names it if it stays
        say(f"  not yet: {name_of(error)}: {error}")
        return False


def prepare_schemas(driver):
    client = driver.open(SERVER)
    for schema in SCHEMAS:
        driver.query(client, f"CREATE SCHEMA IF NOT EXISTS {schema}")
        driver.query(client, f"DROP TABLE IF EXISTS {schema}.t")
        driver.query(client, f"CREATE TABLE {schema}.t (k text, who text DEFAULT current_user)")
    for role in ("writer_1", "writer_2"):
        driver.query(client, f"DROP OWNED BY {role}") if _role_exists(driver, client, role) else driver.query(
            client, f"CREATE ROLE {role}"
        )
        for schema in SCHEMAS:
            driver.query(client, f"GRANT USAGE ON SCHEMA {schema} TO {role}")
            driver.query(client, f"GRANT ALL ON {schema}.t TO {role}")
    # The test's server commits asynchronously; a crash must not take the tables with it.
    driver.query(client, "CHECKPOINT")
    driver.close(client)


def _role_exists(driver, client, role):
    return driver.query(client, f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'") != []


def rows_of(driver, schema):
    client = driver.open(SERVER)
    rows = driver.query(client, f"SELECT k, who FROM {schema}.t")
    driver.close(client)
    return sorted(rows)


def right_tenant(driver):
    """A session that could not switch from tenant 1 to tenant 2 writes nothing more as tenant 1, nor as nobody."""
    prepare_schemas(driver)
    kept = driver.open(PROXY)
    driver.query(kept, "SET search_path TO tenant_1")
    driver.query(kept, "SET ROLE writer_1")
    written = []
    for turn in range(5):
        trip()
        error_of(lambda: driver.query(kept, f"INSERT INTO t (k) VALUES ('refused-{turn}')"))
        reset()
        driver.query(kept, f"INSERT INTO t (k) VALUES ('kept-{turn}')")
        written.append((f"kept-{turn}", "writer_1"))
    driver.close(kept)

    for lost in ("SET search_path TO tenant_2", "SET ROLE writer_2", "RESET ALL"):
        client = driver.open(PROXY)
        driver.query(client, "SET search_path TO tenant_1")
        driver.query(client, "SET ROLE writer_1")
        trip()
        error = error_of(lambda: driver.query(client, lost))
        say(f"{lost}: {name_of(error)}, {driver.sqlstate(error)}: {str(error).splitlines()[0]}")
        reset()
        for turn in range(3):
            error = error_of(lambda: driver.query(client, f"INSERT INTO t (k) VALUES ('lost-{turn}')"))
        say(f"  then {name_of(error)}: {error}")
        driver.close(client)
    check(rows_of(driver, "tenant_1") == sorted(written), rows_of(driver, "tenant_1"))
    check(rows_of(driver, "tenant_2") == [] and rows_of(driver, "public") == [], "a write in the wrong place")
    say("right tenant")


def right_tenant_of_a_pool(driver):
    """A pool whose hook sets up each connection writes into its tenant or not at all."""
    prepare_schemas(driver)
    pool = driver.open(PROXY, setup="SET search_path TO tenant_1")
    insert = "INSERT INTO t (k) VALUES ('{}')".format
    written = set()

    def write(key):
        try:
            driver.query(pool, insert(key))
        except Exception:  # noqa: BLE001 - whatever the driver calls it
            return False
        written.add((key, "postgres"))
        return True

    eventually("a write", lambda: write("first"))
    for turn in range(3):
        trip()
        check(not write(f"refused-{turn}"), "a write while open")
        reset()
        eventually("a write after a reset", lambda: write(f"reset-{turn}"))
    check(rows_of(driver, "tenant_1") == sorted(written), rows_of(driver, "tenant_1"))
    kill()
    errors_until_open(lambda: driver.query(pool, insert("lost")))
    restart()
    let_a_probe_through()
    eventually("a write after the restart", lambda: write("again"))
    # The last writes before the crash may be gone: the test's server commits asynchronously.
    after = set(rows_of(driver, "tenant_1"))
    check(("again", "postgres") in after and after <= written, after)
    check(rows_of(driver, "tenant_2") == [] and rows_of(driver, "public") == [], "a write in the wrong place")
    driver.close(pool)
    say("right tenant of a pool")
