"""One connection to the internal listener, as an asyncio protocol."""

import asyncio
import socket
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from math import inf
from typing import Protocol, cast

import structlog
from tornado.iostream import StreamClosedError

from tornado_ds.addresses import UNIX
from tornado_ds.errors import FramingError
from tornado_ds.gate import ConnectionGate, Verdict
from tornado_ds.handlers.routes import DRAIN_BYTES, WebApplication
from tornado_ds.handlers.webhook import judge
from tornado_ds.limits import Deadlines
from tornado_ds.llhttp.checks import Answers, Request, Requests
from tornado_ds.llhttp.exchange import Exchange, Peer
from tornado_ds.llhttp.framing import END_OF_HEAD, Head, is_hopeless, is_unfinished

log = structlog.get_logger("llhttp")

# Why nothing more is read from a connection, as bits.
_ANSWERING = 1  # one request at a time
_CHOKED = 2  # the peer does not take what was written
_CLOSING = 4  # all is said
_YIELDING = 8  # others want to be served too


class Host(Protocol):
    """What a connection needs of the server that accepted it."""

    app: WebApplication
    gate: ConnectionGate
    requests: Requests
    answers: Answers
    is_draining: bool
    deadlines: Deadlines

    def remove(self, connection: "Connection") -> None:
        """Forget a connection."""

    def post(self, connection: "Connection") -> None:
        """Have a connection flush at the end of this turn of the loop."""


class Connection(asyncio.Protocol):
    """
    Reads requests one by one and answers them in order.

    A plain `POST /check-token` goes to the gate without any object in between;
    everything else goes to the application as an `Exchange`, and so does every
    `/check-token` with something unusual about it. Nothing is read while a
    request is answered, or while the peer does not take what was written.
    """

    __slots__ = (
        "_answers",
        "_context",
        "_discarded",
        "_exchange",
        "_flushes",
        "_gate",
        "_holds",
        "_host",
        "_requests",
        "_task",
        "_transport",
        "_unread",
        "_unsent",
        "_wanted",
        "deadline",
    )

    _transport: asyncio.Transport

    def __init__(self, host: Host) -> None:
        self._host = host
        self._gate = host.gate
        self._requests = host.requests
        self._answers = host.answers
        # In which to go on after a request, whose own context says which one it was.
        self._context = copy_context()
        # What came and was not looked at, and how much of it makes another look worthwhile.
        self._unread = bytearray()
        self._wanted = 0
        # Answers of the gate that wait for the end of this turn.
        self._unsent = b""
        self._holds = 0
        self._exchange: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._flushes: list[asyncio.Future[None]] = []
        self._discarded = 0
        self.deadline = inf

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self.deadline = self._host.deadlines.idle

    def data_received(self, data: bytes) -> None:
        if self._unread or self._holds:
            if self._holds & _CLOSING:
                self._discard(len(data))
                return
            # Of half a head, that is what need not be looked at again.
            seen = len(self._unread)
            self._unread += data
            if self._holds:
                self._transport.pause_reading()
                return
            if len(self._unread) < self._wanted or (not self._wanted and is_unfinished(self._unread, seen=seen)):
                return
            data = bytes(self._unread)
            self._unread.clear()
        self._read(data)

    def eof_received(self) -> None:
        # The transport closes itself now, after what it was given.
        self.flush()

    def pause_writing(self) -> None:
        self._holds |= _CHOKED
        self.deadline = self._host.deadlines.write

    def resume_writing(self) -> None:
        if not self._holds & _CLOSING:
            self.deadline = inf if self._holds & _ANSWERING else self._host.deadlines.idle
        flushes, self._flushes = self._flushes, []
        for future in flushes:
            if not future.done():
                future.set_result(None)
        self._release(_CHOKED)

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.remove(self)
        self._holds |= _CLOSING
        for future in self._flushes:
            if not future.done():
                _fail(future)
        self._lose_exchange()
        self._host.app.on_close(self)

    # From the server

    @property
    def is_idle(self) -> bool:
        """True if no request has begun that is not answered."""
        return not (self._holds or self._unread or self._exchange)

    def flush(self) -> None:
        """Write the answers that were posted."""
        data, self._unsent = self._unsent, b""
        if data and not self._transport.is_closing():
            self._transport.write(data)

    # From an exchange

    @property
    def is_draining(self) -> bool:
        return self._host.is_draining

    def send(self, data: bytes) -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()
        if self._transport.is_closing():
            _fail(future)
            return future
        self.flush()
        self._transport.write(data)
        if self._holds & _CHOKED:
            self._flushes.append(future)
        else:
            future.set_result(None)
        return future

    def finished(self, exchange: Exchange) -> None:
        if exchange is not self._exchange:
            return
        self._exchange = None
        if not exchange.is_read:
            self._linger()
        elif exchange.must_close or self._host.is_draining:
            self.close()
        else:
            self.deadline = self._host.deadlines.write if self._holds & _CHOKED else self._host.deadlines.idle
            self._release(_ANSWERING)

    def abort(self) -> None:
        """Close at once, whatever is still to be written."""
        self._holds |= _CLOSING
        self._transport.abort()

    # Reading

    def _read(self, data: bytes, start: int = 0) -> None:
        stop = self._read_request(data, start) if self._exchange is None else self._read_body(data, start)
        if stop == len(data) or self._holds & _CLOSING:
            return
        if self._holds or stop == start:
            self._unread += data[stop:]
        else:
            # One request a turn, so that a client with many at hand holds up nobody.
            self._holds |= _YIELDING
            asyncio.get_running_loop().call_soon(self._read_on, data, stop)
        if self._holds:
            self._transport.pause_reading()

    def _read_on(self, data: bytes, start: int) -> None:
        self._holds &= ~_YIELDING
        if self._holds:
            self._unread[:0] = data[start:]
            return
        if self._unread:
            data, start = data[start:] + bytes(self._unread), 0
            self._unread.clear()
        self._read(data, start)
        if not self._holds:
            self._transport.resume_reading()

    def _read_request(self, data: bytes, start: int) -> int:
        end = data.find(END_OF_HEAD, start) + 4
        raw = data[start:end]
        if end == 3:
            if is_hopeless(data[start:]):
                self._refuse()
            return start
        try:
            request = self._requests.read(raw)
        except FramingError as exc:
            self._refuse(exc)
            return start
        if not request.is_check:
            self._begin_exchange(request.head)
            return end
        stop = end + request.length
        if stop > len(data):
            if not self._wanted:
                self.deadline = self._host.deadlines.body
            self._wanted = stop - start
            return start
        self._check(request, data[end:stop])
        return stop

    def _check(self, request: Request, body: bytes) -> None:
        self._wanted = 0
        verdict = request.refusal or judge(self._gate, body)
        if isinstance(verdict, Verdict):
            self._answer(verdict, request.connection)
            return
        self._holds |= _ANSWERING
        self.deadline = inf
        self._host.app.in_flight.add(self)
        self._task = asyncio.ensure_future(self._answer_later(verdict, request.connection))

    async def _answer_later(self, pending: Awaitable[Verdict], connection: str) -> None:
        try:
            verdict = await pending
        finally:
            self._host.app.in_flight.remove(self)
            self._task = None
        if not self._transport.is_closing():
            self._answer(verdict, connection)
            self._release(_ANSWERING)

    def _answer(self, verdict: Verdict, connection: str) -> None:
        if self._host.is_draining:
            connection = "close"
        head = self._answers[verdict.status, verdict.content_type, connection]
        # Before it is written, because a transport that is full then sets another one.
        self.deadline = self._host.deadlines.idle
        self._post(b"%b%d\r\n\r\n%b" % (head, len(verdict.body), verdict.body))
        self._host.app.note_verdict(verdict)
        if connection == "close":
            self.close()

    def _post(self, data: bytes) -> None:
        """
        Write *data* at the end of this turn, together with the answers to others.

        Each write wakes somebody up, after which a processor goes on slowly: it is
        better to look at all requests first.
        """
        if not self._unsent:
            self._host.post(self)
        self._unsent += data

    def _begin_exchange(self, head: Head) -> None:
        self._exchange = Exchange(self, head, self._peer)
        self.deadline = self._host.deadlines.body
        with self._guarded():
            self._exchange.open(self._host.app)

    def _read_body(self, data: bytes, start: int) -> int:
        assert self._exchange is not None
        with self._guarded():
            return self._exchange.take(data, start)
        return start

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except FramingError as exc:
            self._refuse(exc)
        except Exception:
            log.exception("request failed")
            self._lose_exchange()
            self.abort()
        if self._exchange is not None and self._exchange.is_read:
            self._holds |= _ANSWERING
            if not self._holds & _CHOKED:
                self.deadline = inf

    @property
    def _peer(self) -> Peer:
        peer = self._transport.get_extra_info("peername")
        if peer:
            return Peer(str(peer[0]))
        # Not whoever has no address any more, because it is gone.
        is_unix = self._transport.get_extra_info("socket").family == socket.AF_UNIX
        return Peer(UNIX if is_unix else "")

    # Going on, and ending

    def _release(self, hold: int) -> None:
        self._holds &= ~hold
        if not self._holds:
            asyncio.get_running_loop().call_soon(self._go_on, context=self._context)

    def _go_on(self) -> None:
        if self._holds:
            return
        if self._unread:
            data = bytes(self._unread)
            self._unread.clear()
            self._read(data)
        if not self._holds:
            self._transport.resume_reading()

    def close(self) -> None:
        """Close once everything is written."""
        self.flush()
        self._holds |= _CLOSING
        self._unread.clear()
        self.deadline = self._host.deadlines.write
        self._transport.close()

    def _refuse(self, reason: FramingError | None = None) -> None:
        log.info(
            "malformed request",
            reason=str(reason) if reason else "no request begins like this",
            address=self._peer.remote_ip,
        )
        has_begun = self._exchange is not None and self._exchange.has_begun
        self._lose_exchange()
        if has_begun:
            self.abort()
            return
        self._unsent += self._answers.bad_request
        self._linger()

    def _linger(self) -> None:
        """
        Say no more, and drop what still comes.

        A socket that is closed while something lies unread in it is reset, and
        the peer may never see the answer.
        """
        self._holds |= _CLOSING
        self._unread.clear()
        self.deadline = self._host.deadlines.body
        self.flush()
        if self._transport.is_closing():
            return
        self._transport.write_eof()
        self._transport.resume_reading()

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > DRAIN_BYTES:
            self.abort()

    def _lose_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.lose()


def _fail(future: asyncio.Future[None]) -> None:
    future.set_exception(StreamClosedError())
    # Nobody is obliged to look at it.
    future.exception()
