// node autocannon.mjs URL REQUEST_FILE TOKEN_FILE CONNECTIONS SECONDS: what wrk.lua does, with autocannon from npm.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const autocannon = createRequire(new URL('../peers/package.json', import.meta.url))('autocannon')

const [url, requestFile, tokenFile, connections, duration] = process.argv.slice(2)
const [head, body] = readFileSync(requestFile, 'utf8').split('\r\n\r\n')
const headers = Object.fromEntries(
  head.split('\r\n').slice(1).map((line) => line.split(': ', 2)).filter(([name]) => name !== 'Content-Length')
)
const tokens = readFileSync(tokenFile, 'utf8').trim().split('\n')
let sent = 0

const result = await autocannon({
  url,
  connections: Number(connections),
  duration: Number(duration),
  requests: [{
    method: 'POST',
    path: '/check-token',
    headers,
    setupRequest: (request) => ({ ...request, body: body.replace('@TOKEN@', tokens[sent++ % tokens.length]) })
  }]
})

console.log(JSON.stringify({
  requests: result.requests.total,
  seconds: result.duration,
  errors: result.errors + result.non2xx,
  p50: result.latency.p50 / 1000,
  p99: result.latency.p99 / 1000,
  slowest: result.latency.max / 1000,
  sent
}))
