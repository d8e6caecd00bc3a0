'use strict'
// What every driver script shares: where things are, the proxy's admin API, and the server's life and death. See
// control.py beside this directory: it is the same in the other language.

const assert = require('node:assert/strict')
const readline = require('node:readline')

const PATIENCE = 30_000
const BACKEND = 'it'

function address (name) {
  const text = process.env[name]
  const colon = text.lastIndexOf(':')
  return { host: text.slice(0, colon), port: Number(text.slice(colon + 1)) }
}

const SERVER = address('DRIVER_SERVER')
const PROXY = address('DRIVER_PROXY')
const ADMIN = `http://${process.env.DRIVER_ADMIN}`

const answers = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]()

const say = (...words) => console.log(...words)

async function ask (request) {
  say('!' + request)
  assert.equal((await answers.next()).value, 'done', request)
}

const kill = () => ask('kill')
const restart = () => ask('restart')

async function http (method, path) {
  const answer = await fetch(ADMIN + path, { method, signal: AbortSignal.timeout(PATIENCE) })
  assert.equal(answer.status, 200, `${method} ${path}`)
  return answer.text()
}

const state = async () => JSON.parse(await http('GET', `/api/v1/circuit-breaker/status/${BACKEND}`)).state

async function trip () {
  await http('POST', `/api/v1/circuit-breaker/trip/${BACKEND}`)
  assert.equal(await state(), 'open')
}

async function reset () {
  await http('POST', `/api/v1/circuit-breaker/reset/${BACKEND}`)
  assert.equal(await state(), 'closed')
}

// Ends the open state as its timer would: half-open, and the next call decides.
async function letAProbeThrough () {
  await http('POST', `/api/v1/circuit-breaker/trip/${BACKEND}?for=1ms`)
  await eventually('the end of the open state', async () => (await state()) !== 'open')
}

// The sum of a metric over all its samples.
async function metric (name) {
  let total = 0
  for (const line of (await http('GET', '/metrics')).split('\n')) {
    if (line.split(/[{ ]/, 1)[0] === name) total += Number(line.slice(line.lastIndexOf(' ') + 1))
  }
  return total
}

const accepted = () => metric('fusewire_connections_total')
const dialled = () => metric('fusewire_upstream_connects_total')
const rejections = () => metric('circuit_breaker_rejections_total')

const pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds))

// Polls until `look` returns something true, and returns that.
async function eventually (what, look) {
  const deadline = Date.now() + PATIENCE
  for (;;) {
    const found = await look()
    if (found) return found
    assert(Date.now() < deadline, `waited ${PATIENCE} ms for ${what}`)
    await pause(10)
  }
}

// The error with which a call must fail.
async function errorOf (call) {
  let value
  try {
    value = await within(call())
  } catch (error) {
    return error
  }
  throw new Error(`no error, but ${JSON.stringify(value)}`)
}

// A call that must end in time.
function within (promise) {
  let timer
  const limit = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${PATIENCE} ms for an answer`)), PATIENCE)
  })
  return Promise.race([promise, limit]).finally(() => clearTimeout(timer))
}

const nameOf = error => `${error.constructor.name}${error.code ? ' ' + error.code : ''}`

// Calls a driver whose server is gone until the breaker is open; which errors there were, and how often. Drivers that
// reconnect by themselves keep a call waiting meanwhile: the calls are made side by side.
async function errorsUntilOpen (call) {
  const seen = {}
  let waiting = 0
  await eventually('an open breaker', async () => {
    if (waiting < 20) {
      waiting += 1
      call().then(() => 'no error', error => nameOf(error)).then(name => {
        waiting -= 1
        seen[name] = (seen[name] ?? 0) + 1
      })
    }
    return (await state()) === 'open'
  })
  return JSON.stringify({ ...seen, waiting })
}

// Runs a table of [name, operation] against the server and through the proxy; the answers must be equal.
async function sameAnswers (table, driver) {
  const all = []
  for (const where of [SERVER, PROXY]) {
    const client = await driver.open(where)
    const answers = []
    for (const [name, operation] of table) {
      let answer
      try {
        answer = await within(operation(client))
      } catch (error) {
        answer = `${nameOf(error)}: ${error.message}`
      }
      answers.push([name, plain(answer)])
    }
    await driver.close(client)
    all.push(answers)
  }
  assert.deepEqual(all[1], all[0])
  say(`same answers: ${table.length} operations`)
}

const plain = value => JSON.parse(JSON.stringify(value ?? null, (_, v) => (v instanceof Map ? [...v] : v)))

// Runs a script to its end; what is left open must not keep the process alive.
function main (script) {
  process.on('unhandledRejection', error => {
    console.error('unhandled:', error)
    process.exit(2)
  })
  script().then(() => process.exit(0), error => {
    console.error(error)
    process.exit(1)
  })
}

module.exports = {
  PROXY,
  SERVER,
  accepted,
  assert,
  dialled,
  errorOf,
  errorsUntilOpen,
  eventually,
  kill,
  letAProbeThrough,
  main,
  nameOf,
  pause,
  rejections,
  reset,
  restart,
  sameAnswers,
  say,
  state,
  trip,
  within
}
