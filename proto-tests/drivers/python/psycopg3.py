"""psycopg 3: sync, async, pipeline mode, and psycopg_pool."""

import asyncio

import psycopg
from control import PATIENCE, PROXY, accepted, check, error_of, name_of, reset, same_answers, say, state, trip
from postgres_story import check_refused, pid_of, refused_after_a_crash, refused_by_hand, right_tenant, right_tenant_of_a_pool
from psycopg_pool import ConnectionPool

LOOP = asyncio.new_event_loop()


def dsn(address):
    return f"host={address[0]} port={address[1]} user=postgres dbname=postgres"


class Driver:
    refused = ("psycopg.errors.OperatorIntervention",)
    refused_new = ("psycopg.OperationalError",)
    kept = True
    reconnects_of_ten = 0
    connects_of_one = 1
    silent = ()

    def open(self, address):
        return psycopg.connect(dsn(address), autocommit=True)

    def close(self, client):
        client.close()

    def query(self, client, sql):
        cursor = client.execute(sql)
        return cursor.fetchall() if cursor.description else []

    def sqlstate(self, error):
        return getattr(error, "sqlstate", None)


class Async(Driver):
    def open(self, address):
        return LOOP.run_until_complete(psycopg.AsyncConnection.connect(dsn(address), autocommit=True))

    def close(self, client):
        LOOP.run_until_complete(client.close())

    def query(self, client, sql):
        async def ask():
            cursor = await client.execute(sql)
            return await cursor.fetchall() if cursor.description else []

        return LOOP.run_until_complete(ask())


class Pool(Driver):
    """Its workers connect in the background; a caller only learns that it has waited in vain.

    By default a worker goes on for five minutes with a delay that doubles, and recovers as much later than the server.
    With a short `reconnect_timeout` it gives up at once, and the next caller starts another attempt.
    """

    refused_new = ("psycopg_pool.PoolTimeout",)
    silent = ("psycopg_pool.PoolTimeout",)
    connects_of_one = 4
    check = None

    def open(self, address, setup=None):
        def configure(connection):
            if setup:
                connection.execute(setup)

        pool = ConnectionPool(
            dsn(address),
            kwargs={"autocommit": True},
            min_size=1,
            max_size=1,
            timeout=0.3,
            reconnect_timeout=0.1,
            configure=configure,
            check=self.check,
            open=True,
        )
        if state() == "closed":
            # A slow server is not one that refuses: callers would wait in vain for that, too.
            pool.wait(timeout=PATIENCE)
        return pool

    def close(self, pool):
        pool.close()

    def query(self, pool, sql):
        with pool.connection() as connection:
            return super().query(connection, sql)


class CheckingPool(Pool):
    """It tests each connection before it lends it, by an empty query, which fusewire has been told to answer."""

    check = staticmethod(ConnectionPool.check_connection)


def fails(connection):
    with connection.transaction():
        connection.execute("INSERT INTO d VALUES (1, 'again')")


def pipeline(connection):
    with connection.pipeline():
        cursors = [connection.execute("SELECT %s::int", (n,)) for n in range(100)]
        return [cursor.fetchone() for cursor in cursors]


def copy(connection):
    with connection.cursor() as cursor:
        with cursor.copy("COPY d FROM STDIN") as into:
            for n in range(1000):
                into.write_row((n + 10, f"line {n}"))
        with cursor.copy("COPY (SELECT * FROM d ORDER BY x) TO STDOUT") as out:
            return sum(len(piece) for piece in out)


def server_side_cursor(connection):
    with connection.transaction(), connection.cursor("named") as cursor:
        cursor.itersize = 10
        cursor.execute("SELECT generate_series(1, 100)")
        return cursor.fetchall()


def prepared(connection):
    return [connection.execute("SELECT %s::int + 1", (n,), prepare=True).fetchone() for n in range(10)]


def many(connection):
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO d VALUES (%s, %s)", [(n, "many") for n in range(2000, 2100)])
        return cursor.rowcount


def run(sql, *parameters):
    return lambda connection: connection.execute(sql, *parameters).fetchall()


TABLE = [
    ("table", lambda c: c.execute("DROP TABLE IF EXISTS d; CREATE TABLE d (x int PRIMARY KEY, y text)") and None),
    ("simple", run("SELECT 1, 'two', NULL, 2.5, ARRAY[1, 2], now() > '2020-01-01'")),
    ("parameters", run("SELECT %s::int, %s::text, %s::bytea", (1, "x", b"\0\1"))),
    ("binary", lambda c: c.execute("SELECT %s::float8", (1.5,), binary=True).fetchall()),
    ("insert", run("INSERT INTO d VALUES (1, 'one') RETURNING x")),
    ("unique", fails),
    ("syntax", run("SELEC")),
    ("division", run("SELECT 1/0")),
    ("after errors", run("SELECT count(*) FROM d")),
    ("big", lambda c: len(c.execute("SELECT repeat('x', 1000000)").fetchone()[0])),
    ("copy", copy),
    ("cursor", server_side_cursor),
    ("prepared", prepared),
    ("many", many),
    ("pipeline", pipeline),
]


def pipeline_while_open(driver):
    client = driver.open(PROXY)
    me, before = pid_of(driver, client), accepted()
    trip()

    def refused():
        with client.pipeline():
            for n in range(5):
                client.execute("SELECT %s::int", (n,))

    for _ in range(3):
        error = error_of(refused)
        check_refused(driver, error, driver.refused + ("psycopg.errors.PipelineAborted",), "57000")
    say(f"pipeline: {name_of(error)}, {driver.sqlstate(error)}: {error}")
    reset()
    check(pipeline(client) == [(n,) for n in range(100)], "another answer")
    check(pid_of(driver, client) == me and accepted() == before, "another connection")

    # Prepared statements outlive a rejection, those whose preparation was rejected included.
    check(prepared(client)[0] == (1,), "another answer")
    trip()
    check_refused(driver, error_of(lambda: prepared(client)), driver.refused, "57000")
    new = "SELECT %s::int + 100"
    check_refused(driver, error_of(lambda: client.execute(new, (1,), prepare=True)), driver.refused, "57000")
    reset()
    check(prepared(client)[0] == (1,), "another answer")
    for n in range(5):
        check(client.execute(new, (n,), prepare=True).fetchone() == (n + 100,), "another answer")
    client.close()


def transactions_pass_while_open(driver):
    client = driver.open(PROXY)
    client.execute("DROP TABLE IF EXISTS tx; CREATE TABLE tx (x int)")
    with client.transaction():
        client.execute("INSERT INTO tx VALUES (1)")
        trip()
        with client.transaction():
            client.execute("INSERT INTO tx VALUES (2)")
        check_refused(driver, error_of(lambda: driver.query(driver.open(PROXY), "SELECT 1")), driver.refused_new, "57P03")
    check_refused(driver, error_of(lambda: fails(client)), driver.refused, "57000")
    reset()
    check(driver.query(client, "SELECT x FROM tx ORDER BY x") == [(1,), (2,)], "half a transaction")
    client.close()


if __name__ == "__main__":
    driver = Driver()
    answers = same_answers(TABLE, driver.open, driver.close)
    check("UniqueViolation" in answers["unique"], answers)
    refused_by_hand(driver)
    pipeline_while_open(driver)
    transactions_pass_while_open(driver)
    right_tenant(driver)
    refused_by_hand(Async())
    right_tenant(Async())
    refused_by_hand(CheckingPool())
    pool = Pool()
    refused_by_hand(pool)
    refused_after_a_crash(pool)
    right_tenant_of_a_pool(pool)
