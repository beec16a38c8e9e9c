'use strict'

const assert = require('node:assert/strict')
const http = require('node:http')
const { once } = require('node:events')
const { test } = require('node:test')

const SessionGuard = require('../../config/deepstream/session-guard.js')

const HOUR = 3600000
const SECRET = 'the webhook secret'

test('closes the sockets of an ended session and no other', async (t) => {
  const { feed, connect } = await following(t)
  const [first, second, other] = [connect('s1'), connect('s1'), connect('s2')]

  feed.send('session.ended', { sid: 's1', username: 'alice', expiresAt: Date.now() + HOUR })
  await until(() => first.destroyed && second.destroyed)

  assert.equal(other.destroyed, 0)
})

test('hears nothing from a socket that logs in after its session ended, and closes it', async (t) => {
  const { feed, connect } = await following(t)
  const witness = connect('s1')
  let heard = 0
  feed.send('session.ended', { sid: 's1', username: 'alice', expiresAt: Date.now() + HOUR })
  await until(() => witness.destroyed)

  const late = connect('s1', { onMessage: () => { heard += 1 } })
  late.onMessage()
  await until(() => late.destroyed)

  assert.equal(heard, 0)
})

test('does not spin with a webhook that keeps letting an ended session in', async (t) => {
  const { feed, connect } = await following(t)
  const sockets = [connect('s1')]
  feed.send('session.ended', { sid: 's1', username: 'alice', expiresAt: Date.now() + HOUR })

  for (const end = Date.now() + 900; Date.now() < end;) {
    await until(() => sockets.at(-1).destroyed)
    sockets.push(connect('s1'))
  }

  assert.ok(sockets.length <= 6)
})

test('closes a socket at its expiry', async (t) => {
  const { connect } = await following(t)
  const expiresAt = Date.now() + 300

  const socket = connect('s1', { expiresAt })
  await until(() => socket.destroyed)

  assert.ok(Date.now() >= expiresAt)
})

test('leaves a socket open whose expiry is further away than a timer can hold', async (t) => {
  const { connect } = await following(t)
  const socket = connect('s1', { expiresAt: Date.now() + 2 ** 32 })
  const witness = connect('s2', { expiresAt: Date.now() + 300 })

  await until(() => witness.destroyed)

  assert.equal(socket.destroyed, 0)
})

test('moves the expiry of a renewed session in place, where Valve reads it', async (t) => {
  const { feed, connect } = await following(t)
  const expiresAt = Date.now() + HOUR
  const socket = connect('s1', { expiresAt: Date.now() + 300 })
  const witness = connect('s2', { expiresAt: Date.now() + 400 })
  const { serverData } = socket

  feed.send('session.renewed', { sid: 's1', username: 'alice', expiresAt })
  await until(() => witness.destroyed)

  assert.equal(socket.destroyed, 0)
  assert.equal(serverData.expiresAt, expiresAt)
})

test('never shortens an expiry when an older renewal is replayed', async (t) => {
  const { feed, connect } = await following(t)
  const expiresAt = Date.now() + 2 * HOUR
  const socket = connect('s1', { expiresAt })
  const witness = connect('s2')

  feed.send('session.renewed', { sid: 's1', username: 'alice', expiresAt: Date.now() + HOUR })
  feed.send('session.ended', { sid: 's2', username: 'alice', expiresAt: Date.now() + HOUR })
  await until(() => witness.destroyed)

  assert.equal(socket.serverData.expiresAt, expiresAt)
})

test('kicks the sockets of a changed user that hold older data, once', async (t) => {
  const { feed, connect } = await following(t)
  const older = connect('s1', { userId: 'alice', version: 1 })
  const newer = connect('s1', { userId: 'alice', version: 2 })
  const other = connect('s2', { userId: 'bob', version: 1 })

  feed.send('user.changed', { username: 'alice', version: 2 })
  await until(() => older.destroyed)
  const back = connect('s1', { userId: 'alice', version: 2 })
  feed.send('user.changed', { username: 'alice', version: 2 })
  feed.send('user.changed', { username: 'alice', version: 1 })
  await feed.settled(connect)

  assert.deepEqual([older, newer, other, back].map((socket) => socket.destroyed), [1, 0, 0, 0])
})

test('kicks a socket whose login carries data from before the change', async (t) => {
  const { feed, connect } = await following(t)
  feed.send('user.changed', { username: 'alice', version: 3 })
  feed.send('user.changed', { username: 'alice', version: 2 })
  await feed.settled(connect)

  const late = connect('s1', { userId: 'alice', version: 2 })
  await until(() => late.destroyed)
})

test('spreads the kicks of many changed users over time', async (t) => {
  const { feed, connect } = await following(t, { kickRate: 40 })
  const sockets = Array.from({ length: 30 }, (_, i) => connect(`s${i}`, { userId: `u${i}`, version: 1 }))
  const gone = () => sockets.filter((socket) => socket.destroyed).length

  sockets.forEach((socket) => feed.send('user.changed', { username: socket.userId, version: 2 }))
  await until(() => gone() > 0)
  const atOnce = gone()
  await until(() => gone() === 30)

  assert.equal(atOnce, 10)
})

test('kicks everybody in a crowd, even when the change itself is forgotten meanwhile', async (t) => {
  const { guard, feed, connect } = await following(t, { kickRate: 4 })
  const sockets = [1, 2, 3].map((i) => connect(`s${i}`, { userId: `u${i}`, version: 1 }))
  const gone = () => sockets.filter((socket) => socket.destroyed).length

  sockets.forEach((socket) => feed.send('user.changed', { username: socket.userId, version: 2 }))
  await until(() => gone() > 0 && guard.changed.size === 3)
  guard.changed.clear() // As two minutes later.
  await until(() => gone() === 3)
})

test('closes the sockets of many ended sessions at once, whatever the kick rate', async (t) => {
  const { feed, connect } = await following(t, { kickRate: 4 })
  const sockets = Array.from({ length: 1000 }, (_, i) => connect(`s${i}`))

  sockets.forEach((_, i) => feed.send('session.ended', { sid: `s${i}`, username: 'a', expiresAt: Date.now() + HOUR }))
  const started = Date.now()
  await until(() => sockets.every((socket) => socket.destroyed))

  assert.ok(Date.now() - started < 1000)
})

test('kicks every socket that was there before a reset', async (t) => {
  const { feed, connect } = await following(t)
  const before = [connect('s1'), connect('s2')]

  feed.send('reset', {})
  await until(() => before.every((socket) => socket.destroyed))
  const after = connect('s1')
  await feed.settled(connect)

  assert.equal(after.destroyed, 0)
})

test('leaves sockets alone that did not log in through tornado_ds', async (t) => {
  const { feed, connect } = await following(t)
  const foreign = [connect(undefined), connect(undefined, { serverData: null })]

  feed.send('reset', {})
  await feed.settled(connect)

  assert.deepEqual(foreign.map((socket) => socket.destroyed), [0, 0])
})

test('hears nothing more from a socket that it closes, even after another login on it', async (t) => {
  const { guard, feed, connect } = await following(t)
  const socket = connect('s1')
  let heard = 0
  feed.send('session.ended', { sid: 's1', username: 'alice', expiresAt: Date.now() + HOUR })
  await until(() => socket.destroyed)

  socket.onMessage = () => { heard += 1 } // deepstream does this at each successful login.
  socket.serverData = { sid: 's2', version: 1, expiresAt: Date.now() + HOUR }
  guard.onClientConnected(socket)
  socket.onMessage()

  assert.equal(heard, 0)
  assert.equal(socket.destroyed, 2)
})

test('terminates a socket that ignores the close', async (t) => {
  const { feed, connect } = await following(t)
  const [stubborn, polite] = [connect('s1'), connect('s1')]

  feed.send('session.ended', { sid: 's1', username: 'alice', expiresAt: Date.now() + HOUR })
  await until(() => polite.destroyed)
  polite.isClosed = true
  await until(() => stubborn.terminated)

  assert.equal(polite.terminated, 0)
})

test('follows the session of the last login on a socket', async (t) => {
  const { guard, feed, connect } = await following(t)
  const socket = connect('s1')
  socket.serverData = { sid: 's2', version: 1, expiresAt: Date.now() + HOUR }
  guard.onClientConnected(socket)

  feed.send('session.ended', { sid: 's1', username: 'alice', expiresAt: Date.now() + HOUR })
  await feed.settled(connect)
  const afterFirst = socket.destroyed
  feed.send('session.ended', { sid: 's2', username: 'alice', expiresAt: Date.now() + HOUR })
  await until(() => socket.destroyed)

  assert.equal(afterFirst, 0)
})

test('lets go of a socket that logs in again by other means', async (t) => {
  const { guard, feed, connect } = await following(t)
  const socket = connect('s1')
  socket.serverData = null
  guard.onClientConnected(socket)

  feed.send('session.ended', { sid: 's1', username: 'alice', expiresAt: Date.now() + HOUR })
  await feed.settled(connect)

  assert.equal(socket.destroyed, 0)
})

test('holds no socket that has gone, not even one that was gone when its login came through', async (t) => {
  const { guard, connect } = await following(t)
  const socket = connect('s1')

  guard.onClientDisconnected(socket)
  connect('s1', { isClosed: true })

  assert.equal(guard.entries.size, 0)
})

test('forgets ended sessions when their last token is over', async (t) => {
  const { guard, feed, connect } = await following(t)
  feed.send('session.ended', { sid: 'old', username: 'alice', expiresAt: Date.now() - 1 })
  feed.send('session.ended', { sid: 'new', username: 'alice', expiresAt: Date.now() + HOUR })
  await feed.settled(connect)

  guard.nextSweep = 0
  guard.tick()

  assert.equal(guard.ended.has('old'), false)
  assert.equal(guard.ended.has('new'), true)
})

test('asks for everything first and for what it missed later', async (t) => {
  const { feed, connect } = await following(t)
  const socket = connect('s1')
  feed.send('user.changed', { username: 'nobody', version: 1 })
  await feed.settled(connect)

  feed.drop()
  feed.send('session.ended', { sid: 's1', username: 'alice', expiresAt: Date.now() + HOUR })
  await until(() => socket.destroyed)

  assert.deepEqual(feed.requests.map((headers) => headers['last-event-id']), [undefined, '2'])
})

test('never again sends an id that was too old', async (t) => {
  const { feed, connect } = await following(t)
  const socket = connect('s1')
  feed.send('user.changed', { username: 'nobody', version: 1 })
  feed.write('event: reset\ndata: {}\n\n')
  await until(() => socket.destroyed)

  feed.drop()
  await until(() => feed.requests.length === 2)

  assert.equal(feed.requests[1]['last-event-id'], undefined)
})

test('authenticates itself with the secret', async (t) => {
  const { feed } = await following(t)

  const expected = 'Basic ' + Buffer.from(`deepstream:${SECRET}`).toString('base64')

  assert.equal(feed.requests[0].authorization, expected)
})

test('says once that the secret is wrong, and follows when it is accepted', async (t) => {
  const feed = await Feed.start(t, { status: 401 })
  const { logger } = start(t, feed.url)
  await until(() => feed.requests.length >= 4)

  feed.status = 200
  await until(() => feed.followers.size)
  await until(() => logger.lines.length > 1)

  assert.deepEqual(logger.lines, [
    `error ${feed.url} refuses options.secret: is it its webhook.secret?`,
    `info following ${feed.url}`
  ])
})

test('says once that the feed is lost and once that it is back', async (t) => {
  const { feed, logger } = await following(t)
  feed.status = 503
  feed.drop()
  await until(() => feed.requests.length >= 4)

  feed.status = 200
  await until(() => feed.followers.size)
  await until(() => logger.lines.length > 2)

  assert.deepEqual(logger.lines, [
    `info following ${feed.url}`,
    `warn lost ${feed.url} (it ended): sessions that end now stay connected until it is back`,
    `info following ${feed.url}`
  ])
})

test('takes a page that is no event stream for a lost feed', async (t) => {
  const feed = await Feed.start(t, { type: 'text/html' })
  const { logger } = start(t, feed.url)

  await until(() => feed.requests.length >= 3)

  assert.deepEqual(logger.lines, [
    `warn lost ${feed.url} (200 text/html): sessions that end now stay connected until it is back`
  ])
})

test('goes on to the next auth server when one is gone', async (t) => {
  const [first, second] = [await Feed.start(t), await Feed.start(t)]
  start(t, [first.url, second.url])
  await until(() => first.followers.size)

  await first.stop()
  await until(() => second.followers.size)

  assert.equal(second.requests.length, 1)
})

test('takes several addresses from one text, as an environment variable holds them', async (t) => {
  const feed = await Feed.start(t)
  const { logger } = start(t, `http://127.0.0.1:1/nobody, ${feed.url}`)

  await until(() => feed.followers.size)

  await until(() => logger.lines.at(-1) === `info following ${feed.url}`)
})

test('leaves an auth server that has fallen silent', async (t) => {
  const { feed } = await following(t, { silence: 150 })

  await until(() => feed.requests.length === 2)
  await until(() => feed.followers.size === 1)
})

test('stays with an auth server that sends nothing but heartbeats', async (t) => {
  const { feed } = await following(t, { silence: 300 })

  for (let beat = 0; beat < 10; beat += 1) {
    feed.write(': still here\n\n')
    await new Promise((resolve) => setTimeout(resolve, 60))
  }

  assert.equal(feed.requests.length, 1)
})

test('waits longer after each failure, until the feed is back', async (t) => {
  const feed = await Feed.start(t, { status: 503 })
  const { guard } = start(t, feed.url)

  await until(() => feed.times.length >= 6)
  const [fifth, sixth] = feed.times.slice(4)
  feed.status = 200
  await until(() => feed.followers.size)
  await until(() => guard.feed.failures === 0)

  assert.ok(sixth - fifth >= 80) // At least half of ten milliseconds, doubled four times.
})

test('reads events that arrive in pieces', async (t) => {
  const { feed, connect } = await following(t)
  const socket = connect('s1', { userId: 'Zoë', version: 1 })

  for (const byte of Buffer.from('id: 9\nevent: user.changed\ndata: {"username": "Zoë", "version": 2}\n\n')) {
    feed.write(Buffer.from([byte]))
    await new Promise((resolve) => setImmediate(resolve))
  }

  await until(() => socket.destroyed)
})

test('survives broken events and sockets, and says so', async (t) => {
  const { feed, connect, logger } = await following(t)
  const broken = connect('s1')
  broken.destroy = () => { throw new Error('no such socket') }
  const sound = connect('s1')

  feed.write('event: session.ended\ndata: {"sid": \n\n')
  feed.write('event: session.ended\ndata: null\n\n')
  feed.write('event: of.the.future\ndata: {}\n\nnonsense\n\n')
  feed.send('session.ended', { sid: 's1', username: 'alice', expiresAt: Date.now() + HOUR })
  await until(() => sound.destroyed)

  assert.equal(logger.lines.filter((line) => line.startsWith('error failed, please report this')).length, 3)
})

test('only complains about an address that is none', async (t) => {
  const { logger } = start(t, 'http://[')

  await until(() => logger.lines.length)

  assert.match(logger.lines[0], /^warn lost http:\/\/\[ \(TypeError/)
})

test('only complains about missing options, and closes expired sockets all the same', async (t) => {
  const { guard, logger } = start(t, undefined)
  const socket = new FakeSocket({ sid: 's1', version: 1, expiresAt: Date.now() - 1 })

  guard.onClientConnected(socket)
  await until(() => socket.destroyed)

  assert.match(logger.lines[0], /^error options.url or options.secret is empty/)
})

test('stops following when deepstream stops', async (t) => {
  const { guard, feed } = await following(t)

  await guard.close()
  await until(() => feed.followers.size === 0)
  await new Promise((resolve) => setTimeout(resolve, 100))

  assert.equal(feed.requests.length, 1)
})

/** Start a guard that follows a feed, and wait until it does. */
async function following (t, options = {}) {
  const feed = await Feed.start(t)
  const { guard, logger } = start(t, feed.url, options)
  await until(() => logger.lines.includes(`info following ${feed.url}`))
  const connect = (sid, { version = 1, expiresAt = Date.now() + HOUR, ...properties } = {}) => {
    const socket = Object.assign(new FakeSocket({ sid, version, expiresAt }), properties)
    guard.onClientConnected(socket)
    return socket
  }
  return { guard, feed, logger, connect }
}

function start (t, url, options = {}) {
  const logger = new ListLogger()
  const guard = new SessionGuard({ url, secret: SECRET, retry: 10, ...options }, { logger })
  t.after(() => guard.close())
  guard.whenReady()
  return { guard, logger }
}

async function until (condition) {
  const deadline = Date.now() + 10000
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`still not so: ${condition}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** A feed like that of tornado_ds: it replays after Last-Event-ID and numbers its events. */
class Feed {
  static async start (t, { status = 200, type = 'text/event-stream' } = {}) {
    const feed = new Feed()
    Object.assign(feed, { status, type, events: [], requests: [], times: [], followers: new Set() })
    feed.server = http.createServer((request, response) => feed.serve(request, response)).listen(0, '127.0.0.1')
    await once(feed.server, 'listening')
    feed.url = `http://127.0.0.1:${feed.server.address().port}/session-events`
    t.after(() => feed.stop())
    return feed
  }

  serve (request, response) {
    this.requests.push(request.headers)
    this.times.push(Date.now())
    response.writeHead(this.status, { 'content-type': this.type })
    if (this.status !== 200 || this.type !== 'text/event-stream') return response.end()
    const seen = Number(request.headers['last-event-id'] || 0)
    response.write(': hello\n\n' + this.events.slice(seen).join(''))
    this.followers.add(response)
    response.on('close', () => this.followers.delete(response))
  }

  send (name, data) {
    this.events.push(`id: ${this.events.length + 1}\nevent: ${name}\ndata: ${JSON.stringify(data)}\n\n`)
    this.write(this.events.at(-1))
  }

  write (text) { this.followers.forEach((response) => response.write(text)) }

  /** Wait until all that was sent before has been applied. */
  async settled (connect) {
    const witness = connect('witness')
    this.send('session.ended', { sid: 'witness', username: 'witness', expiresAt: Date.now() })
    await until(() => witness.destroyed)
  }

  drop () {
    this.followers.forEach((response) => response.end())
    this.followers.clear()
  }

  async stop () {
    this.drop()
    if (!this.server.listening) return
    this.server.close()
    await once(this.server, 'close')
  }
}

class FakeSocket {
  constructor (serverData) {
    Object.assign(this, { serverData, userId: 'alice', isClosed: false, destroyed: 0, terminated: 0 })
    this.socket = { terminate: () => { this.terminated += 1 } }
  }

  onMessage () {}
  destroy () { this.destroyed += 1 }
}

class ListLogger {
  constructor () { this.lines = [] }
  info (event, message) { if (!message.startsWith('closed ')) this.lines.push(`info ${message}`) }
  warn (event, message) { this.lines.push(`warn ${message}`) }
  error (event, message) { this.lines.push(`error ${message}`) }
}
