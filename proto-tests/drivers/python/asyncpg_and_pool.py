"""asyncpg: a connection and its pool."""

import asyncio

import asyncpg
from control import PROXY, accepted, check, error_of, name_of, reset, same_answers, say, trip
from postgres_story import check_refused, pid_of, refused_after_a_crash, refused_by_hand, right_tenant, right_tenant_of_a_pool

LOOP = asyncio.new_event_loop()
asyncio.set_event_loop(LOOP)
wait = LOOP.run_until_complete


class Driver:
    refused = ("asyncpg.exceptions.OperatorInterventionError",)
    refused_new = ("asyncpg.exceptions.CannotConnectNowError",)
    kept = True
    reconnects_of_ten = 0
    connects_of_one = 1
    silent = ()

    def open(self, address):
        return wait(asyncpg.connect(host=address[0], port=address[1], user="postgres", database="postgres"))

    def close(self, client):
        wait(client.close(timeout=5))

    def query(self, client, sql):
        return [tuple(row) for row in wait(client.fetch(sql))]

    def sqlstate(self, error):
        # 08003 is what asyncpg itself says of a connection that ended.
        code = getattr(error, "sqlstate", None)
        return None if code == "08003" else code


class Pool(Driver):
    """On the way back into the pool a connection is reset with a query of its own. It holds RESET ALL: rejected, it ends
    the session, and its own error hides that of the query (which stays in the context)."""

    kept = False
    refused = Driver.refused + Driver.refused_new + ("asyncpg.exceptions.ConnectionDoesNotExistError",)
    reconnects_of_ten = 10

    def close(self, pool):
        wait(asyncio.wait_for(pool.close(), 10))

    def open(self, address, setup=None):
        async def prepare(connection):
            if setup:
                await connection.execute(setup)

        # `setup` is run for each loan: the reset of the last one has undone it.
        return wait(
            asyncpg.create_pool(
                host=address[0],
                port=address[1],
                user="postgres",
                database="postgres",
                min_size=0,
                max_size=2,
                setup=prepare,
            )
        )


class PlainPool(Pool):
    """A pool without that reset, for applications that change no session state: connections are kept."""

    kept = True
    refused = Driver.refused
    reconnects_of_ten = 0

    def open(self, address, setup=None):
        async def no_reset(_connection):
            pass

        return wait(
            asyncpg.create_pool(
                host=address[0],
                port=address[1],
                user="postgres",
                database="postgres",
                min_size=0,
                max_size=2,
                reset=no_reset,
            )
        )


async def transaction(connection):
    async with connection.transaction():
        await connection.execute("INSERT INTO d3 VALUES ($1, $2)", 1, "one")
    async with connection.transaction():
        await connection.execute("INSERT INTO d3 VALUES ($1, $2)", 2, "two")
        await connection.execute("INSERT INTO d3 VALUES ($1, $2)", 1, "again")


async def cursor(connection):
    async with connection.transaction():
        return [row[0] async for row in connection.cursor("SELECT generate_series(1, 100)", prefetch=10)]


async def copy(connection):
    rows = [(n, f"line {n}") for n in range(10, 1010)]
    await connection.copy_records_to_table("d3", records=rows)
    return await connection.fetchval("SELECT md5(string_agg(x || y, ',' ORDER BY x)) FROM d3")


async def listen(connection):
    heard = LOOP.create_future()
    await connection.add_listener("news", lambda *note: heard.set_result(note[2:]))
    await connection.execute("NOTIFY news, 'hello'")
    note = await asyncio.wait_for(heard, 10)
    await connection.reset()
    return note


async def prepared(connection):
    statement = await connection.prepare("SELECT $1::int * 2")
    return [await statement.fetchval(n) for n in range(10)]


def awaited(operation):
    return lambda client: wait(operation(client))


TABLE = [
    ("table", awaited(lambda c: c.execute("DROP TABLE IF EXISTS d3; CREATE TABLE d3 (x int PRIMARY KEY, y text)"))),
    ("simple", awaited(lambda c: c.fetch("SELECT 1, 'two', NULL, 2.5, ARRAY[1, 2]"))),
    ("parameters", awaited(lambda c: c.fetch("SELECT $1::int, $2::text, $3::bytea", 1, "x", b"\0\1"))),
    ("transaction", awaited(transaction)),
    ("rows", awaited(lambda c: c.fetch("SELECT * FROM d3"))),
    ("syntax", awaited(lambda c: c.fetch("SELEC"))),
    ("division", awaited(lambda c: c.fetchval("SELECT 1/$1::int", 0))),
    ("many", awaited(lambda c: c.executemany("INSERT INTO d3 VALUES ($1, $2)", [(n, "m") for n in range(2000, 2100)]))),
    ("cursor", awaited(cursor)),
    ("copy", awaited(copy)),
    ("prepared", awaited(prepared)),
    ("listen", awaited(listen)),
    ("timeout", awaited(lambda c: c.execute("SELECT pg_sleep(60)", timeout=0.05))),
    ("after a timeout", awaited(lambda c: c.fetchval("SELECT 1"))),
]


def statements_while_open(driver):
    """asyncpg caches prepared statements by their text; a rejected preparation must not enter its cache."""
    client = driver.open(PROXY)
    me = pid_of(driver, client)
    old, new = "SELECT $1::int + 1", "SELECT $1::int + 2"
    check(wait(client.fetchval(old, 1)) == 2, "another answer")
    trip()
    for sql in (old, new, old, new):
        check_refused(driver, error_of(lambda: wait(client.fetchval(sql, 1))), driver.refused, "57000")
    reset()
    check([wait(client.fetchval(sql, 1)) for sql in (old, new, old, new)] == [2, 3, 2, 3], "another answer")
    trip()
    check_refused(driver, error_of(lambda: wait(transaction(client))), driver.refused, "57000")
    reset()
    check(not client.is_in_transaction(), "in a transaction that never began")
    wait(client.execute("ROLLBACK"))
    check(pid_of(driver, client) == me, "another connection")
    driver.close(client)
    # A single statement after a rejected BEGIN could be the rest of its transaction: it must not run by itself.
    client = driver.open(PROXY)
    trip()
    check_refused(driver, error_of(lambda: wait(transaction(client))), driver.refused, "57000")
    reset()
    error = error_of(lambda: wait(client.execute("INSERT INTO d3 VALUES (3, 'three')")))
    check("the BEGIN before this statement was rejected" in str(error), f"{error}")
    client = driver.open(PROXY)
    check(driver.query(client, "SELECT count(*) FROM d3 WHERE x = 3") == [(0,)], "outside its transaction")
    driver.close(client)


def loan_across_a_trip(driver):
    """A connection on loan is kept; what ends it is the reset on its way back, and the pool then makes another."""
    pool = driver.open(PROXY)
    before = accepted()
    connection = wait(pool.acquire())
    trip()
    for _ in range(10):
        check_refused(driver, error_of(lambda: wait(connection.fetch("SELECT 1"))), driver.refused, "57000")
    check(accepted() - before == 1, f"{accepted() - before} connections")
    error = None
    try:
        wait(pool.release(connection))
    except Exception as caught:  # noqa: BLE001 - whether it raises is what is observed
        error = caught
    say(f"returning a connection while open: {error and name_of(error)}: {error}")
    reset()
    check(driver.query(pool, "SELECT 42") == [(42,)], "another answer")
    say(f"  {accepted() - before} connections in all")
    driver.close(pool)


if __name__ == "__main__":
    driver = Driver()
    same_answers(TABLE, driver.open, driver.close)
    refused_by_hand(driver)
    statements_while_open(driver)
    right_tenant(driver)
    pool = Pool()
    refused_by_hand(pool)
    refused_by_hand(PlainPool())
    loan_across_a_trip(pool)
    refused_after_a_crash(pool)
    right_tenant_of_a_pool(pool)
