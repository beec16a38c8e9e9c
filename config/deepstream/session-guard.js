'use strict'

// A plugin for deepstream 5 and later: live connections follow their tornado_ds session when it ends, expires, changes.
// options.url: the session feed, http://127.0.0.1:8001/session-events, or a list of them, one for each auth server
// options.secret: the webhook.secret of tornado_ds
// options.kickRate: of a crowd that has to log in again, so many a second (500)

const http = require('http')
const https = require('https')

/** @import { NamespacedLogger as Logger, SocketWrapper } from '@deepstream/types' */
/** @typedef {Omit<SocketWrapper, 'serverData'> & { serverData: Session|null, socket: { terminate(): void } }} Socket */
/** @typedef {{ sid: string, version: number, expiresAt: number }} Session what the webhook answers as serverData */
/** @typedef {{ session: Session, why?: string }} Entry why: the reason for which it has to log in again */
/** @typedef {{ url: string|string[], secret: string, kickRate?: number, silence?: number, retry?: number }} Options */

const LOG = 'SESSION_GUARD'
const TICK = 250
const MINUTE = 60000

/** What deepstream calls. Events and logins only change what it knows; check() alone decides who has to go. */
class SessionGuard {
  /** @param {Options} options  @param {{ logger: Logger }} services */
  constructor (options, services) {
    this.description = 'live connections follow their session'
    this.logger = services.logger
    this.kicksLeft = this.kicksPerTick = Math.ceil((options.kickRate || 500) * TICK / 1000)
    this.nextSweep = 0
    this.entries = /** @type {Map<Socket, Entry>} */ (new Map())
    this.closing = /** @type {WeakSet<Socket>} */ (new WeakSet())
    this.ended = /** @type {Map<string, number>} sid -> expiry of its last token */ (new Map())
    this.renewed = /** @type {Map<string, number>} sid -> its new expiry */ (new Map())
    this.changed = /** @type {Map<string, { version: number, until: number }>} by username */ (new Map())
    this.feed = new Feed(options, this.logger, (name, data) => this.safely(() => this.learn(name, JSON.parse(data))))
  }

  async whenReady () {
    this.ticker = setInterval(() => this.safely(() => this.tick()), TICK).unref()
    this.feed.start()
  }

  async close () {
    clearInterval(this.ticker)
    this.feed.stop()
  }

  /** @param {Socket} socket */
  onClientConnected (socket) { this.safely(() => this.watch(socket)) }
  /** @param {Socket} socket */
  onClientDisconnected (socket) { this.entries.delete(socket) }

  /** @param {Socket} socket */
  watch (socket) {
    // One socket can log in many times at once, with different sessions, and even while it is being closed.
    this.entries.delete(socket)
    if (this.closing.has(socket)) return this.end(socket, 'it was closed before')
    const session = socket.serverData
    if (socket.isClosed || !session || typeof session.sid !== 'string') return
    this.entries.set(socket, { session })
    // The webhook's answer can be older than the feed. The next tick closes such a connection; done at once, client
    // and webhook would spin until the webhook knows better too. Until then the connection can do nothing.
    if (this.ended.has(session.sid)) socket.onMessage = () => {}
  }

  /** Events come at least once and in nearly any order. @param {string} name  @param {any} event */
  learn (name, { sid, username, version, expiresAt }) {
    const newest = Math.max(version, (this.changed.get(username) || { version }).version)
    if (name === 'session.ended') this.ended.set(sid, expiresAt)
    if (name === 'session.renewed') this.renewed.set(sid, expiresAt)
    if (name === 'user.changed') this.changed.set(username, { version: newest, until: Date.now() + 2 * MINUTE })
    if (name === 'reset') this.entries.forEach((entry) => { entry.why = 'events were missed' })
    if (!this.review) this.review = setTimeout(() => this.safely(() => this.checkAll()), 20).unref()
  }

  tick () {
    const now = Date.now()
    this.kicksLeft = this.kicksPerTick
    this.checkAll()
    if (now < this.nextSweep) return
    this.nextSweep = now + MINUTE
    for (const known of [this.ended, this.renewed]) known.forEach((until, sid) => until <= now && known.delete(sid))
    this.changed.forEach(({ until }, username) => until <= now && this.changed.delete(username))
  }

  checkAll () {
    this.review = undefined
    for (const [socket, entry] of this.entries) this.check(socket, entry.session, entry)
  }

  /** @param {Socket} socket  @param {Session} session  @param {Entry} entry */
  check (socket, session, entry) {
    const renewed = this.renewed.get(session.sid)
    const changed = this.changed.get(socket.userId)
    if (changed && session.version < changed.version) entry.why = 'its user changed'
    // Valve reads this very object, so the expiry in the rules moves as well.
    if (renewed && session.expiresAt < renewed) session.expiresAt = renewed
    if (this.ended.has(session.sid)) this.end(socket, 'its session ended')
    else if (session.expiresAt <= Date.now()) this.end(socket, 'its session expired')
    // These come back at once and ask the webhook, so many are spread over time.
    else if (entry.why && this.kicksLeft-- > 0) this.end(socket, entry.why)
  }

  /** @param {Socket} socket  @param {string} why */
  end (socket, why) {
    this.entries.delete(socket)
    this.closing.add(socket)
    // A hostile client may leave the closing handshake open for half a minute: nothing that it still sends is heard.
    socket.onMessage = () => {}
    socket.destroy()
    setTimeout(() => this.safely(() => socket.isClosed || socket.socket.terminate()), 2000).unref()
    this.logger.info(LOG, `closed a connection of ${socket.userId}: ${why}`)
  }

  /** @param {() => void} action */
  safely (action) {
    try { action() } catch (error) { this.logger.error(LOG, `failed, please report this: ${error}`) }
  }
}

/** Follows the event stream of one auth server after the other and hands over each event, at least once. */
class Feed {
  /** @param {Options} options  @param {Logger} logger  @param {(name: string, data: string) => void} learn */
  constructor ({ url, secret, silence, retry }, logger, learn) {
    this.urls = String(url || '').split(/[\s,]+/).filter(Boolean)
    this.authorization = secret && `Basic ${Buffer.from(`deepstream:${secret}`).toString('base64')}`
    this.silence = silence || 45000
    this.retry = retry || 250
    this.logger = logger
    this.learn = learn
    this.attempts = this.failures = 0
    this.said = new Set()
  }

  start () {
    if (this.urls.length && this.authorization) return this.connect(this.urls[this.attempts++ % this.urls.length])
    this.logger.error(LOG, 'options.url or options.secret is empty, so ended sessions keep their connections')
  }

  stop () {
    this.stopped = true
    clearTimeout(this.timer)
    if (this.request) this.request.destroy()
  }

  /** @param {string} url */
  connect (url) {
    let lost = (/** @type {string} */ why) => {
      lost = () => {}
      this.reconnect(url, why)
    }
    const headers = { authorization: this.authorization, ...(this.lastId && { 'last-event-id': this.lastId }) }
    try {
      const { get } = url.startsWith('https:') ? https : http
      this.request = get(url, { agent: false, headers, timeout: this.silence }, (response) => {
        response.on('error', (error) => lost(String(error))).on('close', () => lost('it ended'))
        const answer = `${response.statusCode} ${response.headers['content-type']}`
        if (!answer.startsWith('200 text/event-stream')) return lost(answer)
        this.say('back', 'info', `following ${url}`)
        this.read(response.setEncoding('utf8'))
      })
      this.request.on('error', (error) => lost(String(error))).on('timeout', () => lost('it is silent'))
    } catch (error) { lost(String(error)) }
  }

  /** @param {http.IncomingMessage} response */
  read (response) {
    let rest = ''
    response.on('data', (chunk) => {
      this.failures = 0
      const blocks = (rest + chunk).split('\n\n')
      rest = String(blocks.pop())
      for (const block of blocks) {
        const { event, data, id } = Object.fromEntries(block.split('\n').map((line) => line.split(/: ?(.*)/, 2)))
        if (event && data) this.learn(event, data)
        if (id || event === 'reset') this.lastId = id // An id that was too old once is never sent again.
      }
    })
  }

  /** @param {string} url  @param {string} why */
  reconnect (url, why) {
    if (this.request) this.request.destroy()
    if (this.stopped) return
    if (why.startsWith('401')) this.say('secret', 'error', `${url} refuses options.secret: is it its webhook.secret?`)
    else this.say('lost', 'warn', `lost ${url} (${why}): sessions that end now stay connected until it is back`)
    const delay = Math.min(16 * this.retry, this.retry * 2 ** this.failures++)
    this.timer = setTimeout(() => this.start(), delay * (0.5 + Math.random() / 2)).unref()
  }

  /** @param {string} what  @param {'info' | 'warn' | 'error'} level  @param {string} message */
  say (what, level, message) {
    // One line for each turn of events, not for each attempt.
    if (what === 'back') this.said.clear()
    if (!this.said.has(what)) this.logger[level](LOG, message)
    this.said.add(what)
  }
}

module.exports = SessionGuard
