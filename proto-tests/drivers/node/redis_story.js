'use strict'
// What every Redis driver must live through, told once; each script supplies the driver: `open(address, db)` (which may
// fail while the breaker is open, or give a client that goes on trying by itself), `close(client)` and
// `command(client, ...words)`.

const net = require('node:net')
const {
  PROXY, SERVER, accepted, assert, dialled, errorOf, errorsUntilOpen, eventually, kill, letAProbeThrough, nameOf,
  rejections, reset, restart, say, state, trip, within
} = require('./control.js')

const REJECTION = /CIRCUITOPEN backend 'it' is open \(.+\)/

// Commands past the proxy, in the plainest form, so that no driver judges itself.
function direct (...lines) {
  return new Promise((resolve, reject) => {
    const raw = net.connect(SERVER, () => raw.write([...lines, 'QUIT', ''].join('\r\n')))
    let text = ''
    raw.on('data', piece => { text += piece })
    raw.on('end', () => resolve(text.replace(/\+OK\r\n$/, '')))
    raw.on('error', reject)
  })
}

const keysOf = async db => Number((await direct(`SELECT ${db}`, 'DBSIZE')).split(':')[1])

function checkRefused (driver, error) {
  assert.equal(error.constructor.name, driver.refused)
  assert.match(error.message, REJECTION)
}

async function refusedByHand (driver) {
  const client = await driver.open(PROXY)
  await driver.command(client, 'SET', 'k', 'v')
  const me = await driver.command(client, 'CLIENT', 'ID')
  const [clients, dials, refusals] = [await accepted(), await dialled(), await rejections()]
  await trip()
  let error
  for (let n = 0; n < 10; n++) {
    error = await errorOf(() => driver.command(client, 'GET', 'k'))
    checkRefused(driver, error)
  }
  say(`rejected: ${nameOf(error)}: ${error.message}`)
  // A whole batch, sent before its first answer is read.
  const batch = await Promise.allSettled(Array.from({ length: 50 }, () => driver.command(client, 'GET', 'k')))
  for (const one of batch) checkRefused(driver, one.reason)
  assert.equal(await accepted(), clients, 'reconnects')
  assert.equal(await rejections() - refusals, 60, 'something was retried')

  const other = await newWhileOpen(driver)
  assert.equal(await dialled(), dials, 'an open breaker dialled')
  await reset()
  assert.equal(await driver.command(client, 'GET', 'k'), 'v')
  assert.equal(await driver.command(client, 'CLIENT', 'ID'), me, 'another connection')
  await eventually('the client made while open', () => works(driver, other))
  await driver.close(client)
  await driver.close(other)
  say('refused by hand: kept')
}

// A client made while the breaker is open: what it says, and how often it tries.
async function newWhileOpen (driver) {
  const [clients, refusals] = [await accepted(), await rejections()]
  const { client, error } = await driver.openWhileOpen(PROXY)
  say(`new client while open: ${nameOf(error)}: ${error.message}`)
  assert.match(error.message, REJECTION)
  say(`  ${await accepted() - clients} connections, ${await rejections() - refusals} rejections`)
  assert(await accepted() - clients <= 3, 'a storm of connections')
  return client
}

async function works (driver, client) {
  try {
    await within(driver.command(client, 'PING'))
    return true
  } catch (error) {
    say(`  not yet: ${nameOf(error)}: ${error.message}`)
    return false
  }
}

async function refusedAfterACrash (driver) {
  const client = await driver.open(PROXY)
  await driver.command(client, 'SET', 'k', 'v')
  await kill()
  let before = await accepted()
  const errors = await errorsUntilOpen(() => driver.command(client, 'GET', 'k'))
  say(`crash: ${errors}, ${await accepted() - before} connections`)
  before = await accepted()
  const dials = await dialled()
  const seen = {}
  const calls = Array.from({ length: 10 }, async () => {
    const error = await errorOf(() => driver.command(client, 'GET', 'k'))
    seen[`${nameOf(error)}: ${error.message}`] = (seen[`${nameOf(error)}: ${error.message}`] ?? 0) + 1
  })
  await Promise.all(calls)
  say(`after the crash: ${JSON.stringify(seen)}, ${await accepted() - before} connections for ten calls`)
  assert(await accepted() - before <= 10, 'a storm of connections')
  assert.equal(await dialled(), dials, 'an open breaker dialled')
  await restart()
  await letAProbeThrough()
  await eventually('a command after the restart', () => works(driver, client))
  assert.equal(await driver.command(client, 'SET', 'k', 'v2'), 'OK')
  assert.equal(await state(), 'closed')
  await driver.close(client)
  say('recovered after the crash')
}

// Nothing that a client of database 3 writes may land in another one, whatever was rejected meanwhile.
async function rightDatabase (driver) {
  await direct('FLUSHALL')
  const old = await driver.open(PROXY, 3)
  let written = new Set()
  const write = (client, key) => driver.command(client, 'SET', key, '1').then(() => written.add(key), () => false)
  assert(await write(old, 'old'))
  for (let turn = 0; turn < 5; turn++) {
    await trip()
    assert(!await within(write(old, `refused-${turn}`)), 'a write while open')
    const { client } = await driver.openWhileOpen(PROXY, 3)
    // Writes that the driver keeps or sends by itself, before, while and after the breaker closes.
    const pending = []
    for (let n = 0; n < 5; n++) pending.push(write(client, `early-${turn}-${n}`))
    const resetting = reset()
    for (let n = 0; n < 50; n++) pending.push(write(client, `while-${turn}-${n}`))
    await resetting
    await within(Promise.all(pending))
    assert(await write(old, `old-${turn}`), 'a client that was there before the trip')
    await eventually('a client made while open', () => within(write(client, `new-${turn}`)))
    await driver.close(client)
  }
  assert.equal(await keysOf(0), 0, await direct('KEYS *'))
  assert.equal(await keysOf(3), written.size)

  await kill()
  await errorsUntilOpen(() => driver.command(old, 'SET', 'lost', '1'))
  await restart()
  written = new Set()
  await letAProbeThrough()
  await eventually('a write after the restart', () => within(write(old, 'again')))
  for (let turn = 0; turn < 10; turn++) assert(await write(old, `after-${turn}`))
  assert.equal(await keysOf(0), 0, await direct('KEYS *'))
  assert(await keysOf(3) >= written.size, 'a write is missing')
  await driver.close(old)
  say('right database')
}

async function tell (driver) {
  await refusedByHand(driver)
  await refusedAfterACrash(driver)
  await rightDatabase(driver)
}

module.exports = { checkRefused, direct, keysOf, tell, REJECTION }
