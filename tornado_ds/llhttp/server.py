"""The server of the internal listener: accepts, keeps the time, and drains."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from tornado_ds.acceptor import Acceptor
from tornado_ds.handlers.routes import WebApplication
from tornado_ds.llhttp.checks import Answers, Requests
from tornado_ds.llhttp.connection import Connection

log = structlog.get_logger("llhttp")

# So many are accepted before others get their turn.
_AT_ONCE = 1024

# While it stops, a server waits so long for what is already on its way to it.
LAST_CALL_SECONDS = 0.25

# Each costs memory, so that even endless descriptors do not allow for more.
_MOST_CONNECTIONS = 20_000

# Files, the database and our own wake-ups need descriptors too.
_OTHER_DESCRIPTORS = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What no peer may exceed: seconds, and a number of connections.

    *idle* is the time from one answer to the end of the next request's head, *write* how long
    a peer may leave unread what was written. All may last up to *tick* longer.
    """

    idle: float = 10.0
    body: float = 5.0
    write: float = 30.0
    tick: float = 1.0
    connections: int | None = None


class Server:
    """
    Serves *app* over llhttp.

    A server beyond its limit of connections accepts and closes at once, so that
    descriptors are left for everything else.
    """

    def __init__(self, app: WebApplication, *, limits: Limits | None = None) -> None:
        self.app = app
        self.gate = app.services.gate
        self.requests = Requests(self.gate)
        self.answers = Answers(is_https=app.services.cookie.is_secure)
        self.is_draining = False
        self._limits = limits or Limits()
        self._max_connections = self._limits.connections or affordable_connections()
        self._connections: set[Connection] = set()
        self._to_flush: list[Connection] = []
        self._turned_away = 0
        self._acceptors: list[Acceptor] = []
        self._arriving: set[asyncio.Task[None]] = set()
        self._is_empty = asyncio.Event()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on *sockets*, which listen, and are closed by `drain`."""
        self._loop = asyncio.get_running_loop()
        self._tick()
        self._acceptors = [Acceptor(sock, self._accepted, at_once=_AT_ONCE) for sock in sockets]

    async def drain(self, seconds: float) -> None:
        """Accept no more, answer what was asked within *seconds*, close."""
        self.is_draining = True
        while self._acceptors:
            self._acceptors.pop().close()
        await asyncio.gather(*self._arriving)
        await self._wait_until_empty(min(LAST_CALL_SECONDS, seconds))
        for connection in list(self._connections):
            if connection.is_idle:
                connection.close()
        await self._wait_until_empty(seconds)
        for connection in list(self._connections):
            connection.abort()
        await self._wait_until_empty(seconds)
        self._timer.cancel()

    # From the connections

    def add(self, connection: Connection) -> bool:
        """Note *connection*; False if there are too many."""
        if len(self._connections) >= self._max_connections:
            self._turned_away += 1
            return False
        self._connections.add(connection)
        return True

    def remove(self, connection: Connection) -> None:
        """Forget *connection*."""
        self._connections.discard(connection)
        if not self._connections:
            self._is_empty.set()

    def post(self, connection: Connection) -> None:
        """Have *connection* flush at the end of this turn of the loop, together with the others."""
        if not self._to_flush:
            self._loop.call_soon(self._flush)
        self._to_flush.append(connection)

    def _flush(self) -> None:
        connections, self._to_flush = self._to_flush, []
        for connection in connections:
            connection.flush()

    def _tick(self) -> None:
        # One look at all connections a second costs less than a timer for each request.
        now = self._loop.time()
        self.idle_deadline = now + self._limits.tick + self._limits.idle
        self.body_deadline = now + self._limits.tick + self._limits.body
        self.write_deadline = now + self._limits.tick + self._limits.write
        for connection in list(self._connections):
            if connection.deadline < now:
                connection.abort()
        if self._turned_away:
            log.warning("too many connections", turned_away=self._turned_away, limit=self._max_connections)
            self._turned_away = 0
        self._timer = self._loop.call_later(self._limits.tick, self._tick)

    def _accepted(self, peer: socket.socket, _address: object) -> None:
        task = self._loop.create_task(self._arrive(peer))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _arrive(self, peer: socket.socket) -> None:
        # Who has gone again already is no error of ours.
        with contextlib.suppress(OSError):
            await self._loop.connect_accepted_socket(lambda: Connection(self), peer)

    async def _wait_until_empty(self, seconds: float) -> None:
        self._is_empty.clear()
        if self._connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_empty.wait(), seconds)


def affordable_connections() -> int:
    """Return how many connections each of two listeners can have with descriptors left for everything else."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    rest = limit - max(limit // 8, _OTHER_DESCRIPTORS)
    return min(_MOST_CONNECTIONS, max(1, rest // 2))
