'use strict'
// ioredis: RESP2 and RESP3, auto-pipelining, pipelines, MULTI, WATCH, publish and subscribe.

const { Redis } = require('ioredis')
const { PROXY, accepted, assert, errorOf, eventually, main, nameOf, reset, sameAnswers, say, trip } = require('./control.js')
const { checkRefused, direct, keysOf, tell } = require('./redis_story.js')

const protocol = Number(process.argv[2])

// The default delay between two attempts to connect grows to five seconds; a test need not wait that long.
const retryStrategy = attempt => Math.min(10 * 2 ** attempt, 200)

function make ({ host, port }, db = 0, more = {}) {
  const client = new Redis({ host, port, db, protocol, retryStrategy, ...more })
  client.errors = []
  client.on('error', error => client.errors.push(error))
  return client
}

const driver = {
  refused: 'SimpleError',
  async open (address, db) {
    const client = make(address, db)
    await eventually('a connection', () => client.status === 'ready')
    return client
  },
  async openWhileOpen (address, db) {
    const client = make(address, db)
    return { client, error: await errorOf(() => client.get('k')) }
  },
  async close (client) {
    client.disconnect()
  },
  command: (client, ...words) => client.call(...words)
}

async function underWatch (client) {
  await client.watch('counter')
  const value = Number(await client.get('counter') ?? 0)
  return client.multi().set('counter', value + 1).get('counter').exec()
}

async function lostWatch (client) {
  await client.watch('counter')
  await client.incr('counter')
  return client.multi().set('counter', 0).exec()
}

async function batch (client, kind) {
  const pipe = client[kind]()
  for (let n = 0; n < 200; n++) pipe.set(`p${n}`, n).get(`p${n}`)
  const answers = await pipe.lpush('p0', 'x').exec()
  return answers.map(([error, value]) => [error && error.message, value])
}

async function listen (client) {
  const subscriber = client.duplicate()
  const heard = []
  subscriber.on('message', (...message) => heard.push(message))
  await subscriber.subscribe('news', 'weather')
  await client.publish('news', 'hello')
  await eventually('a message', () => heard.length)
  subscriber.on('pmessage', (...message) => heard.push(message))
  const told = [await subscriber.psubscribe('n*'), await subscriber.ssubscribe('shard')]
  await client.publish('news', 'again')
  await eventually('messages', () => heard.length === 3)
  // Without arguments, ioredis would wait for a count of zero, which subscriptions of other kinds keep from coming.
  told.push(await subscriber.unsubscribe('news'), await client.publish('news', 'by pattern'))
  await eventually('a message', () => heard.length === 4)
  subscriber.disconnect()
  return [heard, told]
}

const TABLE = [
  ['flush', c => c.flushall()],
  ['set', c => c.set('k', 'v', 'EX', 1000)],
  ['get', c => c.get('k')],
  ['nothing', c => c.get('none')],
  ['big', async c => [await c.set('big', Buffer.alloc(1e6, 1)), (await c.getBuffer('big')).length]],
  ['hash', async c => [await c.hset('h', { a: 1, b: 2 }), await c.hgetall('h')]],
  ['list', async c => [await c.rpush('l', 'a', 'b'), await c.lrange('l', 0, -1)]],
  ['scores', async c => [await c.zadd('z', 1.5, 'a'), await c.zrange('z', 0, -1, 'WITHSCORES')]],
  ['script', c => c.eval('return {KEYS[1], ARGV[1], {1, 2}}', 1, 'k', 'a')],
  ['wrong type', c => c.lpush('k', 'x')],
  ['unknown', c => c.call('NOSUCH')],
  ['pipeline', c => batch(c, 'pipeline')],
  ['transaction', c => batch(c, 'multi')],
  ['watch', underWatch],
  ['lost watch', lostWatch],
  ['blocking', c => c.blpop('empty', 0.01)],
  ['publish and subscribe', listen],
  ['stream', async c => [await c.xadd('x', '1-1', 'f', 'v'), await c.xread('BLOCK', 10, 'STREAMS', 'x', '0')]],
  ['scan', async c => { const keys = []; for await (const batch of c.scanStream()) keys.push(...batch); return keys.sort() }],
  ['wait', c => c.wait(0, 10)],
  ['own command', async c => { c.defineCommand('own', { numberOfKeys: 1, lua: 'return {KEYS[1], ARGV[1]}' }); return c.own('k', 'a') }]
]

async function batchesWhileOpen () {
  const client = await driver.open(PROXY)
  await client.flushall()
  const before = await accepted()
  await trip()
  const answers = await client.pipeline().set('a', 1).get('a').exec()
  for (const [error] of answers) checkRefused(driver, error)
  const error = await errorOf(() => client.multi().set('a', 1).set('b', 2).exec())
  say(`transaction: ${nameOf(error)}: ${error.message}`)
  assert.match(error.message, /CIRCUITOPEN/)
  checkRefused(driver, await errorOf(() => underWatch(client)))
  assert.equal(await direct('DBSIZE'), ':0\r\n', 'a write while open')
  await reset()
  // The next transaction after a rejected WATCH is refused: it might rely on the lock.
  assert.match((await errorOf(() => client.multi().set('a', 1).exec())).message, /CIRCUITOPEN/)
  assert.deepEqual(await client.multi().set('a', 1).get('a').exec(), [[null, 'OK'], [null, '1']])
  assert.deepEqual(await underWatch(client), [[null, 'OK'], [null, '1']])
  assert.equal(await accepted(), before, 'reconnects')
  await driver.close(client)
}

// Without its ready check ioredis swallows the error of its own SELECT and holds the connection for ready: what it sends
// on that connection once the breaker has closed would run in database 0.
async function swallowedSelect () {
  await direct('FLUSHALL')
  const written = new Set()
  for (let turn = 0; turn < 5; turn++) {
    await trip()
    const client = make(PROXY, 3, { enableReadyCheck: false, disableClientInfo: true })
    const write = key => client.set(key, 1).then(() => written.add(key), () => false)
    assert(!await write(`refused-${turn}`), 'a write while open')
    assert(!await write(`refused-again-${turn}`), 'a write while open')
    const connections = await accepted()
    await reset()
    const early = await Promise.all([1, 2, 3].map(n => write(`early-${turn}-${n}`)))
    await eventually('a write after the reset', () => write(`late-${turn}`))
    say(`swallowed SELECT: ${early.filter(done => done).length} of 3 writes at once, ${await accepted() - connections} reconnects`)
    client.disconnect()
  }
  assert.equal(await keysOf(0), 0, await direct('KEYS *'))
  assert.equal(await keysOf(3), written.size)
}

async function subscriptionsFlowWhileOpen () {
  const subscriber = await driver.open(PROXY)
  const heard = []
  subscriber.on('message', (channel, message) => heard.push(message))
  await subscriber.subscribe('news')
  const before = await accepted()
  await trip()
  await direct('PUBLISH news hello')
  await eventually('a message while open', () => heard.length === 1)
  checkRefused(driver, await errorOf(() => subscriber.subscribe('weather')))
  await direct('PUBLISH news again')
  await eventually('a message while open', () => heard.length === 2)
  await reset()
  await subscriber.subscribe('weather')
  await direct('PUBLISH weather rain')
  await eventually('a message after the reset', () => heard.at(-1) === 'rain')
  assert.equal(await accepted(), before, 'reconnects')
  await driver.close(subscriber)
}

main(async () => {
  await sameAnswers(TABLE, driver)
  await tell(driver)
  await batchesWhileOpen()
  await swallowedSelect()
  await subscriptionsFlowWhileOpen()
})
