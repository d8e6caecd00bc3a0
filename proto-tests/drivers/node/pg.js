'use strict'
// node-postgres: a client and its pool.

const { Client, Pool } = require('pg')
const {
  PROXY, SERVER, accepted, assert, dialled, errorOf, errorsUntilOpen, eventually, kill, letAProbeThrough, main, nameOf,
  rejections, reset, restart, sameAnswers, say, state, trip
} = require('./control.js')

const settings = ({ host, port }) => ({ host, port, user: 'postgres', database: 'postgres' })
const MESSAGE = /^backend 'it' is open \(.+\)/

const driver = {
  async open (address) {
    const client = new Client(settings(address))
    client.on('error', () => {})
    await client.connect()
    return client
  },
  close: client => client.end()
}

function pool (address, more = {}) {
  const pool = new Pool({ ...settings(address), max: 3, ...more })
  // A pool without this listener ends the process when an idle connection dies.
  pool.on('error', () => {})
  return pool
}

const rows = async (client, sql, values) => (await client.query({ text: sql, values, rowMode: 'array' })).rows
const pidOf = async client => (await rows(client, 'SELECT pg_backend_pid()'))[0][0]

function checkRefused (error, code) {
  assert.equal(error.constructor.name, 'DatabaseError')
  assert.match(error.message, MESSAGE)
  assert.equal(error.code, code)
}

async function transaction (client) {
  await client.query('BEGIN')
  await client.query('INSERT INTO d4 VALUES ($1, $2)', [1, 'one'])
  await client.query('COMMIT')
  await client.query('BEGIN')
  const error = await errorOf(() => client.query('INSERT INTO d4 VALUES ($1, $2)', [1, 'again']))
  await client.query('ROLLBACK')
  return error.code
}

async function listen (client) {
  const heard = []
  client.on('notification', note => heard.push(note.payload))
  await client.query('LISTEN news')
  await client.query("NOTIFY news, 'hello'")
  await eventually('a notification', () => heard.length)
  await client.query('UNLISTEN news')
  return heard
}

const named = client =>
  Promise.all([1, 2, 3].map(n => client.query({ name: 'doubled', text: 'SELECT $1::int * 2 AS n', values: [n] }).then(a => a.rows)))

const TABLE = [
  ['table', async c => { await c.query('DROP TABLE IF EXISTS d4; CREATE TABLE d4 (x int PRIMARY KEY, y text)') }],
  ['simple', c => rows(c, "SELECT 1, 'two', NULL, 2.5, ARRAY[1, 2]")],
  ['parameters', c => rows(c, 'SELECT $1::int, $2::text, $3::bytea', [1, 'x', Buffer.from([0, 1])])],
  ['transaction', transaction],
  ['rows', c => rows(c, 'SELECT * FROM d4')],
  ['syntax', c => rows(c, 'SELEC')],
  ['named', named],
  ['queued', c => Promise.all(Array.from({ length: 100 }, (_, n) => rows(c, 'SELECT $1::int', [n])))],
  ['big', async c => (await rows(c, "SELECT repeat('x', 1000000)"))[0][0].length],
  ['listen', listen]
]

async function refusedByHand () {
  const client = await driver.open(PROXY)
  const me = await pidOf(client)
  await named(client)
  const [clients, dials, refusals] = [await accepted(), await dialled(), await rejections()]
  await trip()
  let error
  for (let n = 0; n < 5; n++) {
    error = await errorOf(() => client.query('SELECT 1'))
    checkRefused(error, '57000')
    checkRefused(await errorOf(() => client.query('SELECT $1::int', [n])), '57000')
  }
  checkRefused(await errorOf(() => named(client)), '57000')
  say(`refused query: ${nameOf(error)}: ${error.message}; ${error.hint}`)
  checkRefused(await errorOf(() => client.query({ name: 'new', text: 'SELECT $1::int + 1 AS n', values: [1] })), '57000')
  assert.equal(await accepted(), clients, 'reconnects')
  assert.equal(await rejections() - refusals, 14, 'something was retried')
  error = await errorOf(() => driver.open(PROXY))
  say(`refused connection: ${nameOf(error)}: ${error.message}`)
  checkRefused(error, '57P03')
  assert.equal(await accepted() - clients, 1)
  assert.equal(await dialled(), dials, 'an open breaker dialled')
  await reset()
  assert.equal(await pidOf(client), me, 'another connection')
  assert.deepEqual((await named(client)).flat(), [{ n: 2 }, { n: 4 }, { n: 6 }])
  // The name whose preparation was rejected.
  const again = () => client.query({ name: 'new', text: 'SELECT $1::int + 1 AS n', values: [1] })
  for (let n = 0; n < 3; n++) assert.deepEqual((await again()).rows, [{ n: 2 }])
  await driver.close(client)
  say('refused by hand')
}

async function transactionsPassWhileOpen () {
  const client = await driver.open(PROXY)
  await client.query('DROP TABLE IF EXISTS tx4; CREATE TABLE tx4 (x int)')
  await client.query('BEGIN')
  await client.query('INSERT INTO tx4 VALUES (1)')
  await trip()
  await client.query('INSERT INTO tx4 VALUES ($1)', [2])
  await client.query('COMMIT')
  checkRefused(await errorOf(() => client.query('BEGIN')), '57000')
  await reset()
  // What is written in every `catch`; without it the rest of the rejected transaction would run by itself.
  await client.query('ROLLBACK')
  assert.deepEqual(await rows(client, 'SELECT x FROM tx4 ORDER BY x'), [[1], [2]])
  await driver.close(client)
}

async function poolWhileOpen () {
  const all = pool(PROXY)
  // A borrowed client is kept through its rejections and when it is given back.
  const client = await all.connect()
  const me = await pidOf(client)
  let before = await accepted()
  await trip()
  for (let n = 0; n < 10; n++) checkRefused(await errorOf(() => client.query('SELECT 1')), '57000')
  client.release()
  assert.equal(await accepted(), before, 'reconnects')
  await reset()
  assert.equal(await pidOf(all), me, 'another connection')
  // `pool.query` drops the connection after every error, a wrong query's as well; the next call needs a new one.
  before = await accepted()
  await trip()
  const codes = []
  for (let n = 0; n < 10; n++) {
    const error = await errorOf(() => all.query('SELECT 1'))
    assert.match(error.message, MESSAGE)
    codes.push(error.code)
  }
  say(`pool.query: ${codes.join(' ')}, ${await accepted() - before} connections`)
  assert.deepEqual(codes, ['57000', ...Array(9).fill('57P03')])
  assert.equal(await accepted() - before, 9)
  await reset()
  assert.deepEqual(await rows(all, 'SELECT 42'), [[42]])

  await kill()
  before = await accepted()
  say(`crash: ${await errorsUntilOpen(() => all.query('SELECT 1'))}, ${await accepted() - before} connections`)
  before = await accepted()
  const dials = await dialled()
  for (let n = 0; n < 10; n++) checkRefused(await errorOf(() => all.query('SELECT 1')), '57P03')
  assert(await accepted() - before <= 13, 'a storm of connections')
  assert.equal(await dialled(), dials, 'an open breaker dialled')
  await restart()
  await letAProbeThrough()
  await eventually('a query after the restart', () => all.query('SELECT 1').then(() => true, error => say(`  not yet: ${nameOf(error)}: ${error.message}`)))
  assert.equal(await state(), 'closed')
  await all.end()
  say('pool')
}

async function rightTenant () {
  const past = await driver.open(SERVER)
  for (const schema of ['public', 'tenant_1', 'tenant_2']) {
    await past.query(`CREATE SCHEMA IF NOT EXISTS ${schema}; DROP TABLE IF EXISTS ${schema}.t; CREATE TABLE ${schema}.t (k text)`)
  }
  const insert = (client, key) => client.query('INSERT INTO t VALUES ($1)', [key])
  const written = []
  const kept = await driver.open(PROXY)
  await kept.query('SET search_path TO tenant_1')
  for (let turn = 0; turn < 5; turn++) {
    await trip()
    checkRefused(await errorOf(() => insert(kept, `refused-${turn}`)), '57000')
    await reset()
    await insert(kept, `kept-${turn}`)
    written.push(`kept-${turn}`)
  }
  for (const lost of ['SET search_path TO tenant_2', 'RESET ALL']) {
    const client = await driver.open(PROXY)
    await client.query('SET search_path TO tenant_1')
    await trip()
    // Sent together: the write must not run without what was to be set before it.
    const errors = [client.query(lost), insert(client, 'lost')].map(query => errorOf(() => query))
    const [first, second] = await Promise.all(errors)
    say(`${lost}: ${nameOf(first)}: ${first.message}; then ${nameOf(second)}: ${second.message}`)
    await reset()
    await errorOf(() => insert(client, 'lost'))
    await client.end().catch(() => {})
  }
  // A pool that sets each connection up: the hook's query is the first of every connection.
  const all = pool(PROXY, { onConnect: client => client.query('SET search_path TO tenant_1') })
  const write = key => insert(all, key).then(() => written.push(key), () => false)
  await eventually('a write', () => write('pool'))
  for (let turn = 0; turn < 3; turn++) {
    await trip()
    assert(!await write(`refused-${turn}`))
    assert(!await write(`refused-${turn}`))
    await reset()
    await eventually('a write after the reset', () => write(`pool-${turn}`))
  }
  assert.deepEqual((await rows(past, 'SELECT k FROM tenant_1.t ORDER BY k')).flat(), written.sort())
  assert.deepEqual(await rows(past, 'SELECT k FROM public.t UNION ALL SELECT k FROM tenant_2.t'), [])
  await Promise.all([all.end(), kept.end(), past.end()])
  say('right tenant')
}

main(async () => {
  await sameAnswers(TABLE, driver)
  await refusedByHand()
  await transactionsPassWhileOpen()
  await rightTenant()
  await poolWhileOpen()
})
