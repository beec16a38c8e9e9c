// Real deepstream clients for the tests in Python, many in one process: commands come in as JSON lines, results and the
// clients' events go out as JSON lines, and the end of the input is the end of all.

import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

// Node 22 has a WebSocket of its own, which cannot send a cookie; without it the client takes the `ws` package.
delete globalThis.WebSocket
const { DeepstreamClient } = createRequire(import.meta.url)('@deepstream/client')

const EVENTS = ['connectionStateChanged', 'reauthenticationFailure', 'clientDataChanged', 'error']

const clients = new Map()

const commands = {
  open (name, url, headers, options) {
    const client = new DeepstreamClient(url, { reconnectIntervalIncrement: 100, socketOptions: { headers }, ...options })
    clients.set(name, client)
    for (const event of EVENTS) client.on(event, (...values) => say({ client: name, event, values }))
  },

  login: (name, authData) => (authData ? clients.get(name).login(authData) : clients.get(name).login()),
  read: (name, record) => clients.get(name).record.snapshot(record),
  write: (name, record, data) => clients.get(name).record.setDataWithAck(record, data),

  async subscribe (name, record) {
    const list = clients.get(name).record.getRecord(record)
    list.subscribe((data) => say({ client: name, event: `record ${record}`, values: [data] }))
    await list.whenReady()
  },

  close (name) {
    clients.get(name).close()
    clients.delete(name)
  }
}

async function obey ({ id, command, args }) {
  try {
    say({ id, result: await commands[command](...args) })
  } catch (error) {
    say({ id, error: error instanceof Error ? String(error) : error })
  }
}

function say (message) {
  process.stdout.write(JSON.stringify(message) + '\n')
}

createInterface({ input: process.stdin })
  .on('line', (line) => obey(JSON.parse(line)))
  .on('close', () => process.exit())
