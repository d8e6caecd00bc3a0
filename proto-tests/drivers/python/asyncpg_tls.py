"""Logs in with asyncpg, once for each line of standard input: `PORT USER PASSWORD TLS CA`, where TLS is `no`, `ask` or
`direct`. Prints for each whether the server's leg had TLS, or the error.
"""

import asyncio
import ssl
import sys

import asyncpg


async def login(port, user, password, tls, ca):
    how = {"ssl": False}
    if tls != "no":
        context = ssl.create_default_context(cafile=ca)
        context.set_alpn_protocols(["postgresql"])
        how = {"ssl": context, "direct_tls": tls == "direct"}
    try:
        connection = await asyncpg.connect(
            host="127.0.0.1", port=int(port), user=user, password=password, database="postgres", timeout=20, **how
        )
    except Exception as error:  # noqa: BLE001 - which one it is, is the answer
        return f"{type(error).__name__}: {error}"
    answer = await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    await connection.close(timeout=5)
    return "t" if answer else "f"


async def main():
    for line in sys.stdin.read().splitlines():
        print((await login(*line.split())).replace("\n", " "), flush=True)


asyncio.run(main())
