"""Tornado's HTTP server as the open Internet needs it: bounded connections, and a log that nobody can fill."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

log = structlog.get_logger("server")

# So often a line says what strangers do again and again.
REPORT_SECONDS = 1.0

# Who cannot be accepted waits so long until it is tried again.
REST_SECONDS = 1.0

# So many are accepted before others get their turn.
_AT_ONCE = 128


class PublicServer(HTTPServer):
    """Knows its connections, and hangs up on those beyond *limit*."""

    def initialize(self, *arguments: Any, limit: int, **options: Any) -> None:  # type: ignore[override]
        super().initialize(*arguments, **options)
        self.streams: set[IOStream] = set()
        self._limit = limit
        self._acceptors: list[_Acceptor] = []
        self._turned_away = _Tally(lambda count, _: log.warning("too many connections", turned_away=count, limit=limit))
        self._bad_tls = _Tally(lambda count, last: log.warning("TLS failed", connections=count, last=last))

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        self._acceptors += [_Acceptor(sock, self._handle_connection) for sock in sockets]

    def stop(self) -> None:
        while self._acceptors:
            self._acceptors.pop().close()

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        if len(self.streams) < self._limit:
            self.streams.add(stream)
            super().handle_stream(stream, address)
        else:
            self._turned_away.add()
            stream.close()

    def on_close(self, server_conn: Any) -> None:
        stream = server_conn.stream
        self.streams.discard(stream)
        # Not whoever just went away, as port scanners and load balancers do.
        if isinstance(stream.error, ssl.SSLError) and stream.error.errno == ssl.SSL_ERROR_SSL:
            self._bad_tls.add(stream.error.reason)
        super().on_close(server_conn)


class _Acceptor:
    """
    Hands every connection to *sock* to *accepted*.

    It rests for a second when the system has no descriptor for another one:
    those who connect wait meanwhile. Tornado's own would try again at once, for
    ever, with a traceback each time.
    """

    def __init__(self, sock: socket.socket, accepted: Callable[[socket.socket, Any], None]) -> None:
        self._sock = sock
        self._accepted = accepted
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._go_on()

    def close(self) -> None:
        """Accept no more, and close the socket."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def _go_on(self) -> None:
        self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, address = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as exc:
                self._rest(exc)
                return
            self._accepted(connection, address)

    def _rest(self, error: OSError) -> None:
        log.error("connections cannot be accepted", reason=error.strerror)
        self._loop.remove_reader(self._sock)
        self._timer = self._loop.call_later(REST_SECONDS, self._go_on)


class _Tally:
    """
    Counts what happens, and has *report* log it in one line a second at most: whoever floods us must not flood the log.

    *report* is called with the number, and with what there was to say the last time.
    """

    def __init__(self, report: Callable[[int, str], None]) -> None:
        self._report = report
        self._count = 0
        self._last = ""

    def add(self, last: str = "") -> None:
        """Count once more."""
        if not self._count:
            asyncio.get_running_loop().call_later(REPORT_SECONDS, self._tell)
        self._count += 1
        self._last = last

    def _tell(self) -> None:
        self._report(self._count, self._last)
        self._count = 0
