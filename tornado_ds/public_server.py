"""Tornado's HTTP server as the open Internet needs it: bounded connections, and a log that nobody can fill."""

import socket
import ssl
from asyncio import Future
from collections.abc import Awaitable, Iterable
from math import inf
from typing import Any

import structlog
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream, SSLIOStream
from tornado.netutil import ssl_wrap_socket

from tornado_ds.acceptor import Acceptor
from tornado_ds.limits import Deadlines, Limits, Tally, affordable_connections

log = structlog.get_logger("server")

# So many are accepted before others get their turn, unless it is said otherwise: with TLS each is some work.
_AT_ONCE = 128

# All that Tornado says of what it cannot parse, before any application could.
_STATUS_LINE = b"HTTP/1.1 400 Bad Request\r\n\r\n"


class PublicServer(HTTPServer):
    """
    Knows its connections, hangs up on those beyond *limits*, and answers *bad_request* to what is no request.

    Tornado's own time-outs are left off: they make two timers and two tasks for each
    request, which is a quarter of what a short one costs.
    """

    def initialize(  # type: ignore[override]
        self, *arguments: Any, limits: Limits, bad_request: bytes, at_once: int | None = None, **options: Any
    ) -> None:
        super().initialize(*arguments, **options)
        self.conn_params.header_timeout = None
        self.deadlines = Deadlines(limits, lambda: self._clients.values())
        self._bad_request = bad_request
        self._at_once = at_once or _AT_ONCE
        self._limit = limits.connections or affordable_connections()
        self._clients: dict[IOStream, _Client] = {}
        self._acceptors: list[Acceptor] = []
        self._turned_away = Tally(
            lambda count, _: log.warning("too many connections", turned_away=count, limit=self._limit)
        )
        self._bad_tls = Tally(lambda count, last: log.warning("TLS failed", connections=count, last=last))

    @property
    def streams(self) -> list[IOStream]:
        """The connections that are open."""
        return list(self._clients)

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        self.deadlines.start()
        self._acceptors += [Acceptor(sock, self._handle_connection, at_once=self._at_once) for sock in sockets]

    def stop(self) -> None:
        while self._acceptors:
            self._acceptors.pop().close()

    async def close_all_connections(self) -> None:
        await super().close_all_connections()
        self.deadlines.stop()

    def _handle_connection(self, connection: socket.socket, address: Any) -> None:
        try:
            self.handle_stream(self._stream_of(connection), address)
        except ssl.SSLError as exc:
            self._bad_tls.add(exc.reason)
        except OSError:
            # Gone before there was TLS, as port scanners and load balancers often are.
            connection.close()

    def _stream_of(self, connection: socket.socket) -> IOStream:
        if self.ssl_options is None:
            return _Stream(connection, bad_request=self._bad_request)
        connection = ssl_wrap_socket(connection, self.ssl_options, server_side=True, do_handshake_on_connect=False)
        return _TLSStream(connection, bad_request=self._bad_request)

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        if len(self._clients) < self._limit:
            self._clients[stream] = _Client(stream)
            super().handle_stream(stream, address)
        else:
            self._turned_away.add()
            stream.close()

    def start_request(self, server_conn: Any, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        client = self._clients[server_conn.stream]
        # Of the first request, it bounds the handshake of TLS too.
        client.deadline = self.deadlines.idle
        return _Timed(super().start_request(server_conn, request_conn), client, self.deadlines)

    def on_close(self, server_conn: Any) -> None:
        stream = server_conn.stream
        self._clients.pop(stream, None)
        # Not whoever just went away, as port scanners and load balancers do.
        if isinstance(stream.error, ssl.SSLError) and stream.error.errno == ssl.SSL_ERROR_SSL:
            self._bad_tls.add(stream.error.reason)
        super().on_close(server_conn)


class _Stream(IOStream):
    """Answers *bad_request* where Tornado would send a status line without any header."""

    def __init__(self, *arguments: Any, bad_request: bytes) -> None:
        super().__init__(*arguments)
        self._bad_request = bad_request

    def write(self, data: bytes | memoryview) -> Future[None]:
        return super().write(self._bad_request if data == _STATUS_LINE else data)


class _TLSStream(_Stream, SSLIOStream):
    """The same, with TLS."""


class _Client:
    """One connection, and until when it has to send what it owes us."""

    __slots__ = ("_stream", "deadline")

    def __init__(self, stream: IOStream) -> None:
        self._stream = stream
        self.deadline = inf

    def abort(self) -> None:
        """Hang up."""
        self._stream.close()


class _Timed(HTTPMessageDelegate):
    """Hands a request on, and notes how long its client may take for what comes next."""

    def __init__(self, inner: HTTPMessageDelegate, client: _Client, deadlines: Deadlines) -> None:
        self._inner = inner
        self._client = client
        self._deadlines = deadlines

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        self._client.deadline = self._deadlines.body
        return self._inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._inner.data_received(chunk)

    def finish(self) -> None:
        # Now it is for us to hurry.
        self._client.deadline = inf
        self._inner.finish()

    def on_connection_close(self) -> None:
        self._inner.on_connection_close()
