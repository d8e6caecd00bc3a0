"""psycopg2, and SQLAlchemy's QueuePool over psycopg2 and over psycopg 3."""

import warnings

import psycopg2
import sqlalchemy
from control import PROXY, accepted, check, error_of, eventually, name_of, reset, same_answers, say, trip
from postgres_story import check_refused, refused_after_a_crash, refused_by_hand, right_tenant, right_tenant_of_a_pool


class Driver:
    refused = ("psycopg2.errors.OperatorIntervention",)
    refused_new = ("psycopg2.OperationalError",)
    kept = True
    reconnects_of_ten = 0
    connects_of_one = 1
    silent = ()

    def open(self, address):
        connection = psycopg2.connect(host=address[0], port=address[1], user="postgres", dbname="postgres")
        connection.autocommit = True
        return connection

    def close(self, client):
        client.close()

    def query(self, client, sql):
        with client.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def sqlstate(self, error):
        return getattr(error, "pgcode", None)


class Alchemy(Driver):
    """An engine with its default pool; SQLAlchemy wraps what the driver raises."""

    refused = ("sqlalchemy.exc.OperationalError",)
    refused_new = ("sqlalchemy.exc.OperationalError",)

    def __init__(self, dialect):
        self.dialect = dialect

    def open(self, address, setup=None, **settings):
        url = f"postgresql+{self.dialect}://postgres@{address[0]}:{address[1]}/postgres"
        engine = sqlalchemy.create_engine(url, **settings)
        if setup:

            @sqlalchemy.event.listens_for(engine, "connect")
            def _(connection, _record):
                with connection.cursor() as cursor:
                    cursor.execute(setup)
                connection.commit()

        return engine

    def close(self, engine):
        engine.dispose()

    def query(self, engine, sql):
        with engine.begin() as connection:
            answer = connection.execute(sqlalchemy.text(sql))
            return [tuple(row) for row in answer] if answer.returns_rows else []

    def sqlstate(self, error):
        cause = getattr(error, "orig", error)
        return getattr(cause, "pgcode", None) or getattr(cause, "sqlstate", None)


def run(sql, parameters=None):
    def operation(connection):
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall()

    return operation


def transaction(connection):
    connection.autocommit = False
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO d2 VALUES (%s, %s)", (7, "seven"))
        with connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO d2 VALUES (%s, %s)", (8, "eight"))
            cursor.execute("INSERT INTO d2 VALUES (%s, %s)", (7, "again"))
    except psycopg2.IntegrityError as error:
        return error.pgcode
    finally:
        connection.autocommit = True


def copy(connection):
    import io

    with connection.cursor() as cursor:
        cursor.copy_expert("COPY d2 FROM STDIN", io.StringIO("".join(f"{n}\tline\n" for n in range(100, 1100))))
        out = io.StringIO()
        cursor.copy_expert("COPY (SELECT * FROM d2 ORDER BY x) TO STDOUT", out)
        return out.getvalue()


TABLE = [
    ("table", lambda c: c.cursor().execute("DROP TABLE IF EXISTS d2; CREATE TABLE d2 (x int PRIMARY KEY, y text)")),
    ("simple", run("SELECT 1, 'two', NULL, 2.5, ARRAY[1, 2]")),
    ("parameters", run("SELECT %s, %s, %s::bytea", (1, "x'y", b"\0\1"))),
    ("transaction", transaction),
    ("rows", run("SELECT * FROM d2")),
    ("syntax", run("SELEC")),
    ("several", run("SELECT 1; SELECT 2")),
    ("copy", copy),
    ("notice", lambda c: (c.cursor().execute("DO $$ BEGIN RAISE NOTICE 'n'; END $$"), c.notices[-1])),
    ("notify", lambda c: (c.cursor().execute("LISTEN a; NOTIFY a, 'x'"), c.poll(), [n.payload for n in c.notifies])),
]

ALCHEMY_TABLE = [
    ("version", lambda e: Alchemy.query(alchemy, e, "SHOW server_version")),
    ("types", lambda e: Alchemy.query(alchemy, e, "SELECT 1, 'two', 2.5, TRUE")),
    ("tables", lambda e: sorted(sqlalchemy.inspect(e).get_schema_names())),
    ("syntax", lambda e: Alchemy.query(alchemy, e, "SELEC")),
]


def pool_while_open(driver):
    """What an application sees that uses the pool as the documentation says, with and without pre-ping."""
    for settings in ({}, {"pool_pre_ping": True}):
        engine = driver.open(PROXY, pool_size=3, **settings)
        connections = [engine.connect() for _ in range(3)]
        pids = sorted(connection.execute(sqlalchemy.text("SELECT pg_backend_pid()")).scalar() for connection in connections)
        for connection in connections:
            connection.close()
        before = accepted()
        trip()
        for _ in range(10):
            error = error_of(lambda: driver.query(engine, "SELECT 1"))
            check(name_of(error) in driver.refused and "backend 'it' is open (" in str(error), repr(error))
        say(f"{driver.dialect} {settings}: {driver.sqlstate(error)}, invalidated: {error.connection_invalidated}")
        say(f"  {accepted() - before} connections for ten refused calls")
        if not settings:
            check(accepted() == before and not error.connection_invalidated, f"{accepted() - before} reconnects")
        check(accepted() - before <= 20, f"{accepted() - before} connections")
        reset()
        eventually("a query after the reset", lambda: driver.query(engine, "SELECT 42") == [(42,)])
        if not settings:
            check(driver.query(engine, "SELECT pg_backend_pid()")[0][0] in pids, "another connection")
        driver.close(engine)


def trip_inside_a_transaction(driver):
    engine = driver.open(PROXY)
    driver.query(engine, "DROP TABLE IF EXISTS tx2; CREATE TABLE tx2 (x int)")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("INSERT INTO tx2 VALUES (1)"))
        trip()
        connection.execute(sqlalchemy.text("INSERT INTO tx2 VALUES (2)"))
    check_refused(driver, error_of(lambda: driver.query(engine, "INSERT INTO tx2 VALUES (3)")), driver.refused, "57000")
    reset()
    check(driver.query(engine, "SELECT x FROM tx2 ORDER BY x") == [(1,), (2,)], "half a transaction")
    driver.close(engine)


if __name__ == "__main__":
    warnings.simplefilter("error")
    driver = Driver()
    same_answers(TABLE, driver.open, driver.close)
    refused_by_hand(driver)
    right_tenant(driver)
    for dialect in ("psycopg2", "psycopg"):
        alchemy = Alchemy(dialect)
        same_answers(ALCHEMY_TABLE, alchemy.open, alchemy.close)
        refused_by_hand(alchemy)
        pool_while_open(alchemy)
        trip_inside_a_transaction(alchemy)
        refused_after_a_crash(alchemy)
        right_tenant_of_a_pool(alchemy)
