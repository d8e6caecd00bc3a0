'use strict'
// node-redis: RESP2 and RESP3, auto-pipelining, MULTI, WATCH, publish and subscribe.

const { createClient } = require('redis')
const { PROXY, accepted, assert, errorOf, eventually, main, nameOf, reset, sameAnswers, say, trip } = require('./control.js')
const { checkRefused, direct, tell } = require('./redis_story.js')

const RESP = Number(process.argv[2])

// The default delay between two attempts to connect grows to two seconds; a test need not wait that long.
const reconnectStrategy = attempt => Math.min(10 * 2 ** attempt, 200)

function make ({ host, port }, db = 0) {
  const client = createClient({ RESP, database: db, socket: { host, port, reconnectStrategy } })
  client.errors = []
  client.on('error', error => client.errors.push(error))
  return client
}

const driver = {
  refused: 'SimpleError',
  async open (address, db) {
    return make(address, db).connect()
  },
  async openWhileOpen (address, db) {
    const client = make(address, db)
    const connecting = client.connect()
    connecting.catch(() => {})
    const ready = connecting.then(() => errorOf(() => client.get('k')))
    const failed = eventually('an error', () => client.errors[0])
    return { client, error: await Promise.race([ready, failed]) }
  },
  async close (client) {
    client.destroy()
  },
  command: (client, ...words) => client.sendCommand(words)
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

async function listen (client) {
  const subscriber = client.duplicate()
  subscriber.on('error', () => {})
  await subscriber.connect()
  const heard = []
  await subscriber.subscribe('news', message => heard.push(message))
  await client.publish('news', 'hello')
  await eventually('a message', () => heard.length)
  await subscriber.pSubscribe('n*', (message, channel) => heard.push([channel, message]))
  await client.publish('news', 'again')
  await eventually('messages', () => heard.length === 3)
  await subscriber.sSubscribe('shard', message => heard.push(message))
  await client.sPublish('shard', 'piece')
  await eventually('a message', () => heard.length === 4)
  await subscriber.unsubscribe()
  await subscriber.pUnsubscribe()
  await subscriber.sUnsubscribe()
  heard.push(await client.publish('news', 'nobody'))
  subscriber.destroy()
  return heard
}

// Client-side caching: what a client sees while another changes what it has cached.
async function cached (client) {
  if (RESP !== 3) return 'RESP3 only'
  const { host, port } = client.options.socket
  const caching = createClient({ RESP, socket: { host, port }, clientSideCache: { ttl: 0, maxEntries: 100, evictPolicy: 'LRU' } })
  caching.on('error', () => {})
  await caching.connect()
  const seen = []
  await client.set('cached', 'one')
  seen.push(await caching.get('cached'), await caching.get('cached'))
  await client.set('cached', 'two')
  seen.push(await eventually('an invalidation', async () => (await caching.get('cached')) === 'two'))
  await client.flushAll()
  seen.push(await eventually('an invalidation of everything', async () => (await caching.get('cached')) === null))
  seen.push(await caching.set('cached', 'own'), await caching.get('cached'))
  caching.destroy()
  return seen
}

const TABLE = [
  ['flush', c => c.flushAll()],
  ['set', c => c.set('k', 'v', { EX: 1000 })],
  ['get', c => c.get('k')],
  ['nothing', c => c.get('none')],
  ['big', async c => [await c.set('big', 'x'.repeat(1e6)), (await c.get('big')).length]],
  ['hash', async c => [await c.hSet('h', { a: 1, b: 2 }), await c.hGetAll('h')]],
  ['list', async c => [await c.rPush('l', ['a', 'b']), await c.lRange('l', 0, -1)]],
  ['scores', async c => [await c.zAdd('z', [{ score: 1.5, value: 'a' }]), await c.zRangeWithScores('z', 0, -1)]],
  ['script', c => c.eval('return {KEYS[1], ARGV[1], {1, 2}}', { keys: ['k'], arguments: ['a'] })],
  ['wrong type', c => c.lPush('k', 'x')],
  ['unknown', c => c.sendCommand(['NOSUCH'])],
  ['pipeline', c => Promise.all(Array.from({ length: 300 }, (_, n) => c.incr('n')))],
  ['transaction', c => c.multi().set('a', '1').incr('a').get('a').exec()],
  ['watch', underWatch],
  ['lost watch', lostWatch],
  ['blocking', c => c.blPop('empty', 0.01)],
  ['publish and subscribe', listen],
  ['client-side caching', cached],
  ['stream', async c => [await c.xAdd('x', '1-1', { f: 'v' }), await c.xRead({ key: 'x', id: '0' }, { BLOCK: 10 })]],
  ['error in a transaction', c => c.multi().set('a', '1').lPush('a', 'x').get('a').execAsPipeline()],
  ['scan', async c => { const keys = []; for await (const batch of c.scanIterator()) keys.push(...batch); return keys.sort() }],
  ['wait', c => c.wait(0, 10)],
  ['loaded script', async c => c.evalSha(await c.scriptLoad('return ARGV[1]'), { arguments: ['a'] })]
]

async function transactionsWhileOpen () {
  const client = await driver.open(PROXY)
  await client.flushAll()
  const before = await accepted()
  await trip()
  const error = await errorOf(() => client.multi().set('a', '1').set('b', '2').exec())
  say(`transaction: ${nameOf(error)}: ${error.message}`)
  assert.match(error.message, /CIRCUITOPEN/)
  checkRefused(driver, await errorOf(() => underWatch(client)))
  assert.equal(await direct('DBSIZE'), ':0\r\n', 'a write while open')
  await reset()
  // The next transaction after a rejected WATCH is refused: it might rely on the lock.
  assert.match((await errorOf(() => client.multi().set('a', '1').exec())).message, /CIRCUITOPEN/)
  assert.deepEqual(await client.multi().set('a', '1').get('a').exec(), ['OK', '1'])
  assert.deepEqual(await underWatch(client), ['OK', '1'])
  assert.equal(await accepted(), before, 'reconnects')
  await driver.close(client)
}

async function subscriptionsFlowWhileOpen () {
  const subscriber = await driver.open(PROXY)
  const heard = []
  await subscriber.subscribe('news', message => heard.push(message))
  const before = await accepted()
  await trip()
  await direct('PUBLISH news hello')
  await eventually('a message while open', () => heard.length === 1)
  checkRefused(driver, await errorOf(() => subscriber.subscribe('weather', message => heard.push(message))))
  await direct('PUBLISH news again')
  await eventually('a message while open', () => heard.length === 2)
  await reset()
  await subscriber.subscribe('weather', message => heard.push(message))
  await direct('PUBLISH weather rain')
  await eventually('a message after the reset', () => heard.at(-1) === 'rain')
  assert.equal(await accepted(), before, 'reconnects')
  await driver.close(subscriber)
}

main(async () => {
  await sameAnswers(TABLE, driver)
  await tell(driver)
  await transactionsWhileOpen()
  await subscriptionsFlowWhileOpen()
})
