/**
 * Ties a page to its login session: a deepstream connection that comes back by
 * itself, a session that lasts while somebody works, and a clear word when it is over.
 *
 *     import { attachSession } from '/static/ds-auth.js';
 *
 *     const client = new DeepstreamClient('ws://localhost:6020/deepstream');
 *     const session = attachSession(client, { loginUrl: '/login' });
 *     session.addEventListener('ended', (event) => console.log(event.detail.reason));
 *     await session.login();
 *
 * This is a module. Scripts that are none load it with `<script type="module"
 * src="/static/ds-auth.js">` and, being `defer` and further down, find `attachSession` among the globals.
 */

/** Denials after which only a new login helps. */
const LOG_IN_AGAIN = new Set(['not_logged_in', 'session_invalid', 'session_expired', 'session_ended', 'account_disabled']);

/** Denials that would be the same next time. All others may pass, so they are tried again. */
const HOPELESS = new Set(['origin_denied', 'invalid_credentials']);

const USE = ['pointerdown', 'keydown', 'wheel', 'touchmove'];
const LONGEST_TIMER = 2 ** 31 - 1;
const CLOCK_TOLERANCE = 5000;
const SHARED = 'tornado_ds.session';

/**
 * Attaches *client* to the session of this page. Attach before logging in.
 *
 * @param {object} client a DeepstreamClient, version 5 or later
 * @param {{loginUrl?: string, sessionUrl?: string}} [options]
 * @returns {PageSession}
 */
export function attachSession(client, options) {
  return new PageSession(client, options);
}

globalThis.attachSession = attachSession;

/**
 * Announces, each as a CustomEvent whose `detail` is described here:
 *
 * - `ended` {reason}: the session is over. Unless prevented, the page then goes to the login page, which leads back to it.
 * - `renewed` {username, expiresAt}: it lasts longer now, by this tab's doing or another's.
 * - `changed` {username, clientData?}: deepstream handed out new client data, or somebody else logged in with this
 *   browser; in the latter case the page is loaded anew, unless prevented.
 * - `denied` {reason}: deepstream refused the page for good, and not because of the session.
 */
class PageSession extends EventTarget {
  /** @type {?string} null until the server has told */
  username = null;

  /** @type {?number} when the session ends, in the server's milliseconds; null until the server has told */
  expiresAt = null;

  #client;
  #loginUrl;
  #sessionUrl;
  #disposal = new AbortController();
  #channel = new BroadcastChannel(SHARED);
  #clientData;
  #opened = () => {};
  #isUsed = true; // Loading the page is the first use of it.
  #isAsking = false;
  #renewAt = 0;
  #clockSkew = 0;
  #clockTimer;
  #retryTimer;
  #failures = { asking: 0, connecting: 0 };

  #clientListeners = {
    connectionStateChanged: (state) => state === 'OPEN' && this.#connected(),
    reauthenticationFailure: ({ reason }) => this.#refused(reason),
    clientDataChanged: (data) => this.#receive(data),
    MAX_RECONNECTION_ATTEMPTS_REACHED: () => this.#connectLater(),
  };

  constructor(client, { loginUrl = '/login', sessionUrl = '/session' } = {}) {
    super();
    this.#client = client;
    this.#loginUrl = loginUrl;
    this.#sessionUrl = sessionUrl;
    for (const [name, listener] of Object.entries(this.#clientListeners)) client.on(name, listener);
    this.#channel.onmessage = ({ data }) => (data.hasEnded ? this.#ask() : this.#learn(data));
    const options = { signal: this.#disposal.signal, passive: true, capture: true };
    for (const name of USE) addEventListener(name, () => this.#use(), options);
    document.addEventListener('visibilitychange', () => this.#use(), options);
    addEventListener('online', () => this.#retryTimer && this.#connect(), options);
    this.#ask();
  }

  /** Milliseconds until the session ends, whatever this computer's clock says; null until the server has told. */
  get timeLeft() {
    return this.expiresAt === null ? null : Math.max(0, this.expiresAt - this.#now());
  }

  /**
   * Logs the client in and resolves once it is connected, after as many tries as that takes.
   * The promise stays pending when the session has ended or deepstream refuses: the events tell.
   *
   * @param {object} [authData] as for the client's own login(); the cookie needs none
   */
  login(authData = {}) {
    const isOpen = new Promise((resolve) => { this.#opened = resolve; });
    this.#client.login(authData).catch((error) => this.#refused(error?.reason));
    return isOpen;
  }

  /** Stops all of this and leaves the client as it is. Call it before the page itself logs out. */
  dispose() {
    this.#disposal.abort();
    this.#channel.close();
    clearTimeout(this.#clockTimer);
    clearTimeout(this.#retryTimer);
    for (const [name, listener] of Object.entries(this.#clientListeners)) this.#client.off(name, listener);
  }

  // The connection

  #connected() {
    this.#failures.connecting = 0;
    this.#opened();
  }

  #refused(reason) {
    if (this.#disposal.signal.aborted) return;
    const code = reason?.error ?? reason;
    if (LOG_IN_AGAIN.has(code)) return this.#end(code);
    // A new socket for each try: it carries the cookie of that moment, and deepstream closes one that failed thrice.
    this.#client.pause();
    if (HOPELESS.has(code)) return this.#announce('denied', { reason: code });
    this.#connectLater();
  }

  #connectLater() {
    clearTimeout(this.#retryTimer);
    this.#retryTimer = setTimeout(() => this.#connect(), backoff(this.#failures.connecting++));
  }

  #connect() {
    clearTimeout(this.#retryTimer);
    this.#retryTimer = undefined;
    this.#client.resume().catch(() => {}); // The client reports the same by reauthenticationFailure.
  }

  #receive(clientData) {
    const { expiresAt, ...rest } = clientData;
    const before = this.#clientData;
    this.#clientData = JSON.stringify(rest);
    if (before === undefined || before === this.#clientData) return;
    this.#change({ username: clientData.username ?? this.username, clientData });
  }

  // The session

  #now() {
    return Date.now() + this.#clockSkew;
  }

  /** Asks the server how the session is, or with POST to renew it. */
  async #ask(method = 'GET') {
    if (this.#isAsking) return;
    this.#isAsking = true;
    const url = method === 'POST' ? `${this.#sessionUrl}/renew` : this.#sessionUrl;
    const { status, date, news } = await fetchJson(url, method, this.#disposal.signal);
    this.#isAsking = false;
    if (this.#disposal.signal.aborted) return;
    if (status === 401) return this.#end(news?.error ?? 'not_logged_in');
    if (status !== 200 || !news) return this.#askLater();
    this.#failures.asking = 0;
    this.#clockSkew = skew(date);
    this.#learn(news);
    if (method === 'POST') this.#channel.postMessage(news);
  }

  #askLater() {
    if (this.timeLeft === 0) return this.#end('session_expired');
    this.#renewAt = this.#now() + backoff(this.#failures.asking++);
    this.#wait();
  }

  #learn({ username, expiresAt }) {
    const before = this.expiresAt;
    this.expiresAt = expiresAt;
    this.#renewAt = this.#now() + this.timeLeft / 2;
    this.#wait();
    if (this.username !== null && this.username !== username) return this.#change({ username });
    this.username = username;
    if (before === null) return;
    this.#isUsed = false;
    if (expiresAt > before) this.#announce('renewed', { username, expiresAt });
  }

  #wait() {
    clearTimeout(this.#clockTimer);
    const next = this.#now() < this.#renewAt ? this.#renewAt : this.expiresAt;
    this.#clockTimer = setTimeout(() => this.#tick(), Math.min(LONGEST_TIMER, Math.max(1000, next - this.#now())));
  }

  #tick() {
    if (this.#disposal.signal.aborted) return;
    if (this.timeLeft === 0 || this.expiresAt === null) this.#ask();
    else if (this.#isDue()) this.#renew();
    this.#wait();
  }

  #use() {
    this.#isUsed = true;
    if (this.#now() >= this.#renewAt) this.#tick();
  }

  /** A tab that nobody looks at, or works in, lets the session run out. */
  #isDue() {
    return this.#isUsed && document.visibilityState === 'visible' && this.#now() >= this.#renewAt;
  }

  /** Renews in one tab for all; the others hear of it. Web Locks exist on https and localhost only. */
  #renew() {
    const renew = (lock) => lock && this.#isDue() && this.#ask('POST');
    return navigator.locks ? navigator.locks.request(SHARED, { ifAvailable: true }, renew) : renew(true);
  }

  // The news

  #end(code) {
    // The browser drops the cookie of a session that ran out, so that the server cannot tell it from none.
    const hasRunOut = code === 'not_logged_in' && this.timeLeft !== null && this.timeLeft < CLOCK_TOLERANCE;
    const reason = hasRunOut ? 'session_expired' : code;
    if (['OPEN', 'AWAITING_AUTHENTICATION'].includes(this.#client.getConnectionState())) this.#client.pause();
    this.#channel.postMessage({ hasEnded: true });
    this.dispose();
    if (this.#announce('ended', { reason })) location.assign(withNext(this.#loginUrl));
  }

  #change(detail) {
    const isSomebodyElse = this.username !== null && detail.username !== this.username;
    this.username = detail.username;
    if (this.#announce('changed', detail) && isSomebodyElse) location.reload();
  }

  #announce(type, detail) {
    return this.dispatchEvent(new CustomEvent(type, { detail, cancelable: true }));
  }
}

/** Doubles from 1 s to 1 min, minus up to half by chance, so that many pages do not come at once. */
function backoff(failures) {
  return Math.min(60_000, 1000 * 2 ** failures) * (1 - Math.random() / 2);
}

/** How far the server's clock is ahead; differences that are only the header's rounding count as none. */
function skew(date) {
  const ahead = Date.parse(date) - Date.now();
  return Math.abs(ahead) > CLOCK_TOLERANCE ? ahead : 0;
}

/** A server that cannot be reached, or says something else than JSON, gives no news. */
async function fetchJson(url, method, signal) {
  try {
    const response = await fetch(url, { method, signal, cache: 'no-store', headers: { Accept: 'application/json' } });
    const news = await response.json().catch(() => null);
    return { status: response.status, date: response.headers.get('Date'), news };
  } catch {
    return {};
  }
}

function withNext(loginUrl) {
  const url = new URL(loginUrl, location.href);
  url.searchParams.set('next', location.pathname + location.search);
  return url;
}
