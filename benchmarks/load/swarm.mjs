// Real deepstream clients, many in one process. The first line on stdin lists them; what happens to their connections
// goes out as JSON lines with the time in seconds since the epoch. The end of stdin is the end of all.

import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

// Node 22 has a WebSocket of its own, which cannot send a cookie; without it the client takes the `ws` package.
delete globalThis.WebSocket
const { DeepstreamClient } = createRequire(import.meta.url)('@deepstream/client')

const LOGINS_AT_ONCE = 20

const lines = createInterface({ input: process.stdin }).on('close', () => process.exit())
lines.once('line', (line) => start(JSON.parse(line)))

async function start ({ clients, options }) {
  const next = clients.values()
  const workers = Array.from({ length: LOGINS_AT_ONCE }, async () => {
    for (const client of next) await connect(client, options)
  })
  await Promise.all(workers)
}

async function connect ({ name, url, headers }, options) {
  const client = new DeepstreamClient(url, { ...options, socketOptions: { headers } })
  client.on('connectionStateChanged', (state) => say(name, state))
  client.on('reauthenticationFailure', () => say(name, 'REFUSED'))
  client.on('error', () => {})
  try {
    await client.login()
  } catch (error) {
    say(name, 'REFUSED')
  }
}

function say (name, state) {
  process.stdout.write(`${JSON.stringify([name, state, (performance.timeOrigin + performance.now()) / 1000])}\n`)
}
