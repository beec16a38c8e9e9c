"""The two listeners: sockets, and the application that answers there."""

import asyncio
import contextlib
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

from tornado_ds.handlers.routes import WebApplication
from tornado_ds.llhttp.framing import MAX_HEAD_BYTES
from tornado_ds.llhttp.server import Limits
from tornado_ds.llhttp.server import Server as LLHTTPServer

DRAIN_SECONDS = 5.0


class Listener(ABC):
    """Sockets and the application that answers there, within the limits of a server on the open Internet."""

    def __init__(self, app: WebApplication, sockets: Sequence[socket.socket]) -> None:
        self._app = app
        self._sockets = list(sockets)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._sockets[0].getsockname()[1])

    @property
    @abstractmethod
    def connections(self) -> int:
        """How many connections are open."""

    @abstractmethod
    async def start(self) -> None:
        """Accept connections."""

    @abstractmethod
    async def drain(self) -> None:
        """Accept no more, answer what was asked, close."""


class PublicListener(Listener):
    """Tornado's own server, with TLS if *tls* is given."""

    def __init__(
        self,
        app: WebApplication,
        sockets: Sequence[socket.socket],
        *,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(app, sockets)
        limits = limits or Limits()
        self._server = _TornadoServer(
            app,
            ssl_options=tls,
            # Of TLS handshakes too.
            idle_connection_timeout=limits.idle,
            body_timeout=limits.body,
            max_header_size=MAX_HEAD_BYTES,
            # Bodies are bounded by the application, which can say so kindly.
            max_body_size=2**62,
        )

    def renew(self, tls: ssl.SSLContext | None) -> None:
        """Use *tls* for everybody who connects from now on."""
        self._server.ssl_options = tls

    @property
    def connections(self) -> int:
        return self._server.connections

    async def start(self) -> None:
        self._server.add_sockets(self._sockets)

    async def drain(self) -> None:
        self._server.stop()
        self._server.conn_params.no_keep_alive = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._app.in_flight.wait_until_none(), DRAIN_SECONDS)
        await self._server.close_all_connections()


class InternalListener(Listener):
    """Our server on llhttp, with a short way for `/check-token`."""

    @property
    def connections(self) -> int:
        return self._server.connections

    async def start(self) -> None:
        self._server = LLHTTPServer(self._app)
        await self._server.start(self._sockets)

    async def drain(self) -> None:
        await self._server.drain(DRAIN_SECONDS)


class _TornadoServer(HTTPServer):
    """Counts its connections."""

    connections = 0

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        self.connections += 1
        super().handle_stream(stream, address)

    def on_close(self, server_conn: object) -> None:
        self.connections -= 1
        super().on_close(server_conn)
