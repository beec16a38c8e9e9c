"""The server of the internal listener: accepts, keeps the time, and drains."""

import asyncio
import contextlib
import socket
from collections.abc import Sequence

import structlog

from tornado_ds.acceptor import Acceptor
from tornado_ds.handlers.routes import WebApplication
from tornado_ds.limits import LAST_CALL_SECONDS, Deadlines, Limits, Tally, affordable_connections
from tornado_ds.llhttp.checks import Answers, Requests
from tornado_ds.llhttp.connection import Connection

log = structlog.get_logger("llhttp")

# So many are accepted before others get their turn, unless it is said otherwise.
_AT_ONCE = 1024


class Server:
    """
    Serves *app* over llhttp.

    A server beyond its limit of connections accepts and closes at once, so that
    descriptors are left for everything else.
    """

    def __init__(self, app: WebApplication, *, limits: Limits | None = None, at_once: int | None = None) -> None:
        self.app = app
        self.gate = app.services.gate
        self.requests = Requests(self.gate)
        self.answers = Answers(is_https=app.services.cookie.is_secure)
        self.is_draining = False
        limits = limits or Limits()
        self.deadlines = Deadlines(limits, lambda: self._connections)
        self._at_once = at_once or _AT_ONCE
        self._max_connections = limits.connections or affordable_connections()
        self._connections: set[Connection] = set()
        self._to_flush: list[Connection] = []
        self._turned_away = Tally(
            lambda count, _: log.warning("too many connections", turned_away=count, limit=self._max_connections)
        )
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
        self.deadlines.start()
        self._acceptors = [Acceptor(sock, self._accepted, at_once=self._at_once) for sock in sockets]

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
        self.deadlines.stop()

    # From the connections

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

    def _accepted(self, peer: socket.socket, _address: object) -> None:
        # Before it has a transport, which it gets in another turn: many can be accepted in one.
        if len(self._connections) >= self._max_connections:
            self._turned_away.add()
            peer.close()
            return
        connection = Connection(self)
        self._connections.add(connection)
        task = self._loop.create_task(self._arrive(connection, peer))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _arrive(self, connection: Connection, peer: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, peer)
        except OSError:
            # Who has gone again already is no error of ours.
            self.remove(connection)

    async def _wait_until_empty(self, seconds: float) -> None:
        self._is_empty.clear()
        if self._connections:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._is_empty.wait()
