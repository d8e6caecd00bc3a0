"""redis-py, asyncio: the same story, pipelines, and a pool of callers that work while the breaker trips and resets."""

import asyncio
import sys

import redis.asyncio as redis
from control import PROXY, accepted, check, error_of, reset, rejections, same_answers, say, trip
from redis_story import check_refused, keys_of, tell

LOOP = asyncio.new_event_loop()
CALLERS = 20


class Driver:
    refused = ("redis.exceptions.ResponseError",)
    refused_new = ("redis.exceptions.ResponseError",)

    def __init__(self, protocol):
        self.protocol = protocol

    def open(self, address, db=0):
        host, port = address
        return redis.Redis(host=host, port=port, db=db, protocol=self.protocol)

    def close(self, client):
        LOOP.run_until_complete(client.aclose())

    def command(self, client, *words):
        answer = LOOP.run_until_complete(client.execute_command(*words))
        return b"OK" if answer is True else answer


async def batch(client, transaction):
    async with client.pipeline(transaction=transaction) as pipe:
        for n in range(200):
            pipe.set(f"p{n}", n).get(f"p{n}")
        pipe.lpush("p0", "x")
        return await pipe.execute(raise_on_error=False)


async def gathered(client):
    await client.set("n", 0)
    return sorted(await asyncio.gather(*(client.incr("n") for _ in range(50))))


async def listen(client):
    async with client.pubsub() as subscriber:
        await subscriber.subscribe("news", "weather")
        await subscriber.psubscribe("n*")
        heard = [await subscriber.get_message(timeout=10) for _ in range(3)]
        await client.publish("news", "hello")
        heard += [await subscriber.get_message(timeout=10) for _ in range(2)]
        await subscriber.unsubscribe("weather")
        return heard, await subscriber.get_message(timeout=10)


async def under_watch(client, lost):
    await client.set("counter", 1)
    async with client.pipeline() as pipe:
        await pipe.watch("counter")
        value = int(await pipe.get("counter"))
        if lost:
            await client.incr("counter")
        pipe.multi()
        pipe.set("counter", value + 1).get("counter")
        return await pipe.execute()


async def scanned(client):
    return sorted([key async for key in client.scan_iter("p1*")])


def awaited(operation):
    return lambda client: LOOP.run_until_complete(operation(client))


TABLE = [
    ("flush", awaited(lambda c: c.flushall())),
    ("set", awaited(lambda c: c.set("k", "v"))),
    ("get", awaited(lambda c: c.get("k"))),
    ("wrong type", awaited(lambda c: c.lpush("k", "x"))),
    ("pipeline", awaited(lambda c: batch(c, False))),
    ("transaction", awaited(lambda c: batch(c, True))),
    ("gathered", awaited(gathered)),
    ("publish and subscribe", awaited(listen)),
    ("hash", awaited(lambda c: c.hset("h", mapping={"a": 1}))),
    ("hash back", awaited(lambda c: c.hgetall("h"))),
    ("scores", awaited(lambda c: c.zadd("z", {"a": 1.5}))),
    ("scores back", awaited(lambda c: c.zrange("z", 0, -1, withscores=True))),
    ("blocking, empty", awaited(lambda c: c.blpop("none", 0.01))),
    ("script", awaited(lambda c: c.eval("return {KEYS[1], {1, 2}}", 1, "k"))),
    ("unknown", awaited(lambda c: c.execute_command("NOSUCH"))),
    ("watch", awaited(lambda c: under_watch(c, False))),
    ("lost watch", awaited(lambda c: under_watch(c, True))),
    ("scan", awaited(scanned)),
    ("binary", awaited(lambda c: c.set("big", bytes(range(256)) * 4096))),
    ("binary back", awaited(lambda c: c.get("big"))),
]


async def callers_across_trips(client):
    """Many tasks on one pool write numbers to database 3 while the breaker opens and closes under them."""
    written, refused, going = set(), 0, True

    async def caller(name):
        nonlocal refused
        turn = 0
        while going:
            key = f"{name}-{turn}"
            try:
                await client.set(key, "1")
                written.add(key)
            except redis.ResponseError as error:
                check_refused(error, Driver.refused)
                refused += 1
            turn += 1
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(caller(n)) for n in range(CALLERS)]
    for _ in range(5):
        goal = len(written) + 200
        while len(written) < goal:
            await asyncio.sleep(0)
        await asyncio.to_thread(trip)
        goal = refused + 200
        while refused < goal:
            await asyncio.sleep(0)
        await asyncio.to_thread(reset)
    going = False
    await asyncio.gather(*tasks)
    return written, refused


def many_callers(driver):
    client = driver.open(PROXY, db=3)
    driver.command(client, "FLUSHALL")
    before, refusals = accepted(), rejections()
    written, refused = LOOP.run_until_complete(callers_across_trips(client))
    say(f"{CALLERS} callers: {len(written)} writes, {refused} refused, {accepted() - before} more connections")
    check(refused == rejections() - refusals, f"{rejections() - refusals} rejections, {refused} errors")
    check(accepted() - before <= CALLERS, f"{accepted() - before} connections for {CALLERS} callers")
    check((keys_of(3), keys_of(0)) == (len(written), 0), (keys_of(3), keys_of(0), len(written)))
    driver.close(client)


def batch_while_open(driver):
    client = driver.open(PROXY)
    driver.command(client, "PING")
    before = accepted()
    trip()
    for transaction in (False, True):
        error = error_of(lambda: LOOP.run_until_complete(_execute(client, transaction)))
        say(f"pipeline, transaction={transaction}: {type(error).__name__}: {error}")
        check(isinstance(error, redis.ResponseError) and "CIRCUITOPEN backend" in str(error), repr(error))
    check(accepted() == before, f"{accepted() - before} reconnects")
    reset()
    check(len(LOOP.run_until_complete(batch(client, True))) == 401, "a transaction after the reset")
    driver.close(client)


async def _execute(client, transaction):
    return await client.pipeline(transaction=transaction).set("a", 1).get("a").execute()


if __name__ == "__main__":
    driver = Driver(int(sys.argv[1]))
    same_answers(TABLE, driver.open, driver.close)
    tell(driver)
    batch_while_open(driver)
    many_callers(driver)
