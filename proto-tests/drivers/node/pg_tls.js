'use strict'
// Logs in with node-postgres, once for each line of standard input: `PORT USER PASSWORD TLS CA`, where TLS is `no`, `ask`
// or `bind` (asks for channel binding). Prints for each whether the server's leg had TLS, or the error.

const fs = require('fs')
const { Client } = require('pg')

async function login (port, user, password, tls, ca) {
  const client = new Client({
    host: '127.0.0.1',
    port: Number(port),
    user,
    password,
    database: 'postgres',
    ssl: tls !== 'no' && { ca: fs.readFileSync(ca) },
    enableChannelBinding: tls === 'bind',
    connectionTimeoutMillis: 20000
  })
  client.on('error', () => {})
  try {
    await client.connect()
    const { rows } = await client.query('SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()')
    return rows[0].ssl ? 't' : 'f'
  } catch (error) {
    return `${error.constructor.name}: ${error.message}`
  } finally {
    await client.end().catch(() => {})
  }
}

(async () => {
  for (const line of fs.readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
    console.log((await login(...line.split(' '))).replaceAll('\n', ' '))
  }
})()
