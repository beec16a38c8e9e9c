/** The demo: one text field that all windows share, bound to the record `demo/shared`. */
import { attachSession } from './ds-auth.js';

const demo = document.querySelector('#demo');
const field = document.querySelector('#shared');
const connection = document.querySelector('#connection');

const CONNECTION = {
  connecting: 'Connecting',
  open: 'Live',
  reconnecting: 'Reconnecting',
  ended: 'Logged out',
  denied: 'Refused',
  missing: 'Not connected',
};

const ENDED = {
  not_logged_in: 'You were logged out in this browser.',
  session_invalid: 'You are not logged in any more.',
  session_expired: 'Your session ran out.',
  session_ended: 'You were logged out elsewhere.',
  account_disabled: 'This account has been disabled.',
};

// After a reconnect the client reads its records anew, and loses what is written to them meanwhile.
const SETTLING = 500;

// The script puts either the class or the module that holds it among the globals.
const Client = globalThis.DeepstreamClient?.DeepstreamClient ?? globalThis.DeepstreamClient;
if (Client) show('connecting');
const session = Client ? start(new Client(demo.dataset.deepstreamUrl)) : null;
showTimeLeft();
setInterval(showTimeLeft, 1000);

function start(client) {
  const session = attachSession(client, { loginUrl: '/login' });
  let record = null;
  let settling;
  let isOver = false;

  const over = (state, ...words) => {
    isOver = true;
    show(state);
    showTimeLeft();
    alertWith(...words);
  };

  client.on('error', (...details) => console.warn('deepstream:', ...details));
  client.on('connectionStateChanged', (state) => {
    clearTimeout(settling);
    if (isOver || !record) return;
    if (state === 'OPEN') settling = setTimeout(show, SETTLING, 'open');
    else show('reconnecting');
  });
  session.addEventListener('ended', (event) => {
    event.preventDefault(); // Nobody should lose sight of what they wrote.
    over('ended', ENDED[event.detail.reason] ?? ENDED.session_invalid, ' Your text stays here for you to copy. ', logInLink());
  });
  session.addEventListener('denied', (event) => over('denied', `deepstream refused this page: ${event.detail.reason}.`));
  session.addEventListener('renewed', showTimeLeft);
  document.querySelector('#logout').form.addEventListener('submit', () => session.dispose());

  session.login().then(async () => {
    record = await bind(client);
    if (!isOver && client.getConnectionState() === 'OPEN') show('open');
  });
  return session;
}

async function bind(client) {
  const record = client.record.getRecord('demo/shared');
  await record.whenReady();
  record.subscribe('text', (text) => replace(String(text ?? '')), true);
  field.addEventListener('input', () => record.set('text', field.value));
  field.placeholder = 'Nobody has written anything yet.';
  field.disabled = false;
  return record;
}

/** Puts in what another window wrote and leaves the caret at the words where it was. */
function replace(text) {
  if (text === field.value) return;
  const { value: before, selectionStart, selectionEnd } = field;
  const growth = text.length - before.length;
  let same = 0;
  while (same < before.length && before[same] === text[same]) same += 1;
  const moved = (caret) => (caret <= same ? caret : Math.max(same, caret + growth));
  field.value = text;
  field.setSelectionRange(moved(selectionStart), moved(selectionEnd));
}

function show(state) {
  if (connection.dataset.state !== state) connection.textContent = CONNECTION[state];
  connection.dataset.state = state;
  field.readOnly = state !== 'open'; // Unlike `disabled`, that keeps the focus over a short reconnect.
}

function logInLink() {
  const link = document.createElement('a');
  link.href = `/login?next=${encodeURIComponent(location.pathname + location.search)}`;
  link.textContent = 'Log in again';
  return link;
}

function alertWith(...parts) {
  const note = document.createElement('p');
  note.className = 'note bad';
  note.append(...parts);
  document.querySelector('#alert').replaceChildren(note);
}

function showTimeLeft() {
  const left = session?.timeLeft ?? demo.dataset.expiresAt - Date.now();
  const text = connection.dataset.state === 'ended' ? 'None' : inWords(left / 1000);
  const element = document.querySelector('#time-left');
  if (element.textContent !== text) element.textContent = text;
}

function inWords(seconds) {
  const units = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first < 0) return 'None';
  const [[unit, size], smaller] = units.slice(first);
  const whole = `${Math.floor(seconds / size)} ${unit}`;
  if (!smaller || unit === 'min') return whole;
  return `${whole} ${Math.floor((seconds % size) / smaller[1])} ${smaller[0]}`;
}
