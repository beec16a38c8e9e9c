"""Tornado's HTTP server as the open Internet needs it: bounded connections, and a log that nobody can fill."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

from tornado_ds.acceptor import Acceptor

log = structlog.get_logger("server")

# So often a line says what strangers do again and again.
REPORT_SECONDS = 1.0

# So many are accepted before others get their turn: with TLS each is some work.
_AT_ONCE = 128


class PublicServer(HTTPServer):
    """Knows its connections, and hangs up on those beyond *limit*."""

    def initialize(self, *arguments: Any, limit: int, **options: Any) -> None:  # type: ignore[override]
        super().initialize(*arguments, **options)
        self.streams: set[IOStream] = set()
        self._limit = limit
        self._acceptors: list[Acceptor] = []
        self._turned_away = _Tally(lambda count, _: log.warning("too many connections", turned_away=count, limit=limit))
        self._bad_tls = _Tally(lambda count, last: log.warning("TLS failed", connections=count, last=last))

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        self._acceptors += [Acceptor(sock, self._handle_connection, at_once=_AT_ONCE) for sock in sockets]

    def stop(self) -> None:
        while self._acceptors:
            self._acceptors.pop().close()

    def _handle_connection(self, connection: socket.socket, address: Any) -> None:
        try:
            super()._handle_connection(connection, address)
        except ssl.SSLError as exc:
            self._bad_tls.add(exc.reason)
        except OSError:
            # Gone before there was TLS, as port scanners and load balancers often are.
            connection.close()

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
