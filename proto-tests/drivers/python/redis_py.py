"""redis-py, synchronous: RESP2 and RESP3, pipelines, transactions, publish and subscribe, client-side caching."""

import sys

import redis
from control import PROXY, accepted, check, error_of, eventually, name_of, reset, same_answers, say, trip
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection
from redis_story import check_refused, direct, tell

BIG = bytes(range(256)) * 8192


class Driver:
    refused = ("redis.exceptions.ResponseError",)
    refused_new = ("redis.exceptions.ResponseError",)

    def __init__(self, **settings):
        self.settings = settings

    def open(self, address, db=0):
        host, port = address
        return redis.Redis(host=host, port=port, db=db, **self.settings)

    def close(self, client):
        client.close()

    def command(self, client, *words):
        answer = client.execute_command(*words)
        return b"OK" if answer is True else answer


def increment_under_watch(client):
    with client.pipeline() as pipe:
        pipe.watch("counter")
        value = int(pipe.get("counter") or 0)
        pipe.multi()
        pipe.set("counter", value + 1)
        pipe.get("counter")
        return pipe.execute()


def lost_watch(client):
    with client.pipeline() as pipe:
        pipe.watch("counter")
        client.incr("counter")
        pipe.multi()
        pipe.set("counter", 0)
        return pipe.execute()


def batch(client, transaction):
    pipe = client.pipeline(transaction=transaction)
    for n in range(200):
        pipe.set(f"p{n}", n)
        pipe.get(f"p{n}")
    pipe.lpush("p0", "x")
    return pipe.execute(raise_on_error=False)


def listen(client):
    subscriber = client.pubsub()
    subscriber.subscribe("news", "weather")
    subscriber.psubscribe("n*")
    answers = [next_message(subscriber) for _ in range(3)]
    client.publish("news", "hello")
    answers += [next_message(subscriber) for _ in range(2)]
    subscriber.unsubscribe()
    answers += sorted((next_message(subscriber) for _ in range(2)), key=repr)
    subscriber.close()
    return answers


def read_in_a_group(client):
    client.xgroup_create("gx", "g", id="0", mkstream=True)
    client.xadd("gx", {"f": "v"}, id="1-1")
    first = client.xreadgroup("g", "me", {"gx": ">"}, count=1, block=1000)
    return first, client.xreadgroup("g", "me", {"gx": ">"}, block=1), client.xack("gx", "g", "1-1"), client.xpending("gx", "g")


def next_message(subscriber):
    return eventually("a message", lambda: subscriber.get_message(timeout=1))


TABLE = [
    ("flush", lambda c: c.flushall()),
    ("set", lambda c: c.set("k", "v", ex=1000)),
    ("get", lambda c: c.get("k")),
    ("nothing", lambda c: c.get("none")),
    ("binary", lambda c: (c.set("big", BIG), c.get("big") == BIG)),
    ("hash", lambda c: (c.hset("h", mapping={"a": 1, "b": 2.5}), c.hgetall("h"))),
    ("list", lambda c: (c.rpush("l", *range(50)), c.lrange("l", 0, -1))),
    ("set of words", lambda c: (c.sadd("s", "a", "b"), sorted(c.smembers("s")))),
    ("scores", lambda c: (c.zadd("z", {"a": 1.5, "b": 2}), c.zrange("z", 0, -1, withscores=True))),
    ("stream", lambda c: (c.xadd("x", {"f": "v"}, id="1-1"), c.xread({"x": "0"}))),
    ("script", lambda c: c.eval("return {KEYS[1], ARGV[1], {1, 2}}", 1, "k", "a")),
    ("wrong type", lambda c: c.lpush("k", "x")),
    ("unknown", lambda c: c.execute_command("NOSUCH")),
    ("scan", lambda c: sorted(c.scan_iter())),
    ("blocking, full", lambda c: c.blpop("l", 5)),
    ("blocking, empty", lambda c: c.blpop("empty", 0.01)),
    ("pipeline", lambda c: batch(c, False)),
    ("transaction", lambda c: batch(c, True)),
    ("watch", increment_under_watch),
    ("lost watch", lost_watch),
    ("publish and subscribe", listen),
    ("config", lambda c: c.config_get("maxmemory")),
    ("loaded script", lambda c: c.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")(["n"], [5])),
    ("group", read_in_a_group),
    ("blocking, several", lambda c: (c.zadd("bz", {"a": 1}), c.bzpopmin(["none", "bz"], 5), c.blmpop(0.01, 1, "none", direction="LEFT"))),
    ("waiting for replicas", lambda c: c.wait(0, 10)),
    ("expiry", lambda c: (c.set("e", 1, ex=1000), 0 < c.ttl("e") <= 1000, c.persist("e"))),
    ("who", lambda c: (c.acl_whoami(), c.client_getname(), c.client_setname("me"), c.client_getname())),
    ("many keys", lambda c: c.mset({f"m{n}": n for n in range(5000)}) and len(c.mget([f"m{n}" for n in range(5000)]))),
    ("raw", lambda c: (c.execute_command("ZSCORE", "z", "a"), c.execute_command("GEOPOS", "none", "x"), c.object("encoding", "l"))),
    ("error in a transaction", lambda c: c.pipeline().set("k", 1).lpush("k", 1).get("k").execute(raise_on_error=False)),
    ("bulk of errors", lambda c: c.pipeline(transaction=False).lpush("k", 1).get("k", "x").execute(raise_on_error=False)),
]


def batches_while_open(driver):
    client = driver.open(PROXY)
    client.flushall()
    me, before = client.client_id(), accepted()
    trip()
    error = error_of(lambda: batch_of(client, False).execute())
    say(f"pipeline: {name_of(error)}: {error}")
    check_refused_in(error)
    answers = batch_of(client, False).execute(raise_on_error=False)
    check(len(answers) == 3, answers)
    for answer in answers:
        check_refused(answer, driver.refused)
    error = error_of(lambda: batch_of(client, True).execute())
    say(f"transaction: {name_of(error)}: {error}")
    check_refused_in(error)
    error = error_of(lambda: increment_under_watch(client))
    say(f"watch: {name_of(error)}: {error}")
    check_refused_in(error)
    check(accepted() == before, f"{accepted() - before} reconnects")
    check(direct("DBSIZE") == ":0\r\n", "a write while open")
    reset()
    # The WATCH was rejected on this connection, and redis-py does not send UNWATCH after it: the next transaction would
    # run without the lock that it may rely on, and is refused.
    check_refused_in(error_of(lambda: batch_of(client, True).execute()))
    check(len(batch_of(client, True).execute()) == 3, "a transaction after the reset")
    check(increment_under_watch(client) == [True, b"1"], "a transaction under WATCH after the reset")
    check(client.client_id() == me, "another connection")

    # Tripped between WATCH and EXEC: nothing of the block happens, the lock is not lost silently.
    with client.pipeline() as pipe:
        pipe.watch("counter")
        trip()
        pipe.multi()
        pipe.set("counter", 100)
        error = error_of(pipe.execute)
        say(f"tripped after WATCH: {name_of(error)}: {error}")
        check_refused_in(error)
    reset()
    check(client.get("counter") == b"1", "half a transaction")
    check(increment_under_watch(client) == [True, b"2"], "a transaction under WATCH after the reset")
    client.close()


def batch_of(client, transaction):
    return client.pipeline(transaction=transaction).set("a", 1).set("b", 2).get("a")


def check_refused_in(error):
    """redis-py puts `Command # 1 (SET a 1) of pipeline caused error: ` in front."""
    check(isinstance(error, redis.ResponseError) and "CIRCUITOPEN backend 'it' is open" in str(error), repr(error))


def subscriptions_flow_while_open(driver):
    client = driver.open(PROXY)
    subscriber = client.pubsub()
    subscriber.subscribe("news")
    check(next_message(subscriber)["type"] == "subscribe", "no confirmation")
    before = accepted()
    trip()
    direct("PUBLISH news hello")
    check(next_message(subscriber)["data"] == b"hello", "another message")
    subscriber.subscribe("weather")
    error = error_of(lambda: next_message(subscriber))
    say(f"subscribe while open: {name_of(error)}: {error}")
    check_refused(error, driver.refused)
    direct("PUBLISH news again")
    check(next_message(subscriber)["data"] == b"again", "another message")
    check(accepted() == before, f"{accepted() - before} reconnects")
    reset()
    subscriber.subscribe("weather")
    check(next_message(subscriber)["channel"] == b"weather", "another confirmation")
    subscriber.close()
    client.close()


def caching_client(address):
    return redis.Redis(host=address[0], port=address[1], protocol=3, cache_config=CacheConfig(max_size=100))


def cached_and_invalidated(client):
    """What a caching client sees while others change what it has cached, and what is in its cache."""
    cache = client.get_cache()
    seen = [direct("SET c one"), client.get("c"), client.get("c"), cache.size]
    direct("SET c two")
    seen += [eventually("an invalidation", lambda: client.get("c") != b"one"), client.get("c"), cache.size]
    seen += [client.mget("c", "none"), client.hset("ch", "f", "v"), client.hgetall("ch"), cache.size]
    direct("FLUSHALL")
    seen += [eventually("an invalidation of everything", lambda: client.get("c") is None), client.hgetall("ch")]
    seen += [client.set("c", "own"), client.get("c"), client.set("c", "own again"), client.get("c")]
    pipe = client.pipeline().set("c", "in a block").get("c").publish("nobody", "x")
    return seen + [pipe.execute(), client.get("c")]


def caching(driver):
    # redis-py asks for Redis 7.4 here; the caching itself is the same in every server that speaks RESP3.
    CacheProxyConnection.MIN_ALLOWED_VERSION = "6.0.0"
    same_answers([("caching", cached_and_invalidated)], caching_client, lambda client: client.close())
    cached = caching_client(PROXY)
    direct("SET c one")
    check(cached.get("c") == b"one" and cached.get("c") == b"one", "another value")
    check(cached.get_cache().size == 1, "nothing is cached")
    direct("SET c two")
    eventually("an invalidation", lambda: cached.get("c") == b"two")
    trip()
    check(cached.get("c") == b"two", "a cached value needs no server")
    check_refused(error_of(lambda: cached.get("not cached")), driver.refused)
    # The server's invalidations arrive while the breaker is open; the stale value is not served.
    direct("SET c three")
    eventually("an invalidation while open", lambda: _fails(lambda: cached.get("c")))
    late = caching_client(PROXY)
    error = error_of(lambda: late.get("c"))
    say(f"caching client made while open: {name_of(error)}: {error}")
    check_refused(error, driver.refused_new)
    reset()
    for client in (cached, late):
        check(client.get("c") == b"three", "another value")
    direct("SET c four")
    for client in (cached, late):
        eventually("an invalidation after the reset", lambda: client.get("c") == b"four")
        client.close()


def _fails(call):
    try:
        call()
    except redis.ResponseError:
        return True
    return False


if __name__ == "__main__":
    protocol = int(sys.argv[1])
    driver = Driver(protocol=protocol)
    answers = same_answers(TABLE, driver.open, driver.close)
    check("WRONGTYPE" in answers["wrong type"] and "WatchError" in answers["lost watch"], answers)
    tell(driver)
    batches_while_open(driver)
    subscriptions_flow_while_open(driver)
    if protocol == 3:
        caching(driver)
