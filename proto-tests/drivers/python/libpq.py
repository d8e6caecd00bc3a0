"""One libpq 18 connection, for what no other client here can do: protocol 3.2 and TLS from the first byte.

`libpq.py CONNINFO` connects and prints what became of it as one line of JSON. `libpq.py CONNINFO cancel` then begins a
query that sleeps, prints a line, awaits one on its input, cancels the query and prints how it ended.
"""

import json
import sys
import threading

import psycopg


def show(**what):
    print(json.dumps(what), flush=True)


def main(conninfo, cancels):
    try:
        connection = psycopg.connect(conninfo, autocommit=True)
    except psycopg.Error as error:
        show(error=str(error))
        return
    ssl = connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()[0]
    show(
        protocol=connection.pgconn.full_protocol_version,
        ssl=bool(connection.pgconn.ssl_in_use),
        server_ssl=ssl,
        pid=connection.info.backend_pid,
    )
    if cancels:
        ended = []

        def sleep():
            try:
                connection.execute("SELECT pg_sleep(60)")
            except psycopg.Error as error:
                ended.append(error)

        thread = threading.Thread(target=sleep, daemon=True)
        thread.start()
        sys.stdin.readline()
        connection.cancel_safe(timeout=20)
        thread.join(timeout=20)
        show(sqlstate=ended[0].sqlstate if ended else None)
    connection.close()


if __name__ == "__main__":
    assert psycopg.pq.version() >= 180000, psycopg.pq.version()
    main(sys.argv[1], sys.argv[2:] == ["cancel"])
