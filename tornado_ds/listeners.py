"""The two listeners: sockets, and the application that answers there."""

import asyncio
import contextlib
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Sequence

from tornado_ds.handlers.routes import WebApplication
from tornado_ds.limits import LAST_CALL_SECONDS, Limits
from tornado_ds.llhttp.checks import Answers
from tornado_ds.llhttp.framing import MAX_HEAD_BYTES
from tornado_ds.llhttp.server import Server as LLHTTPServer
from tornado_ds.public_server import PublicServer
from tornado_ds.sockets import refuse

DRAIN_SECONDS = 5.0


class Listener(ABC):
    """
    Sockets and the application that answers there, within the limits of a server on the open Internet.

    Up to *at_once* connections are accepted before it does anything else: many, if it is not said, so
    that nobody waits in a storm, and few where other processes accept too, so that each gets its share.
    """

    def __init__(
        self,
        app: WebApplication,
        sockets: Sequence[socket.socket],
        *,
        limits: Limits | None = None,
        at_once: int | None = None,
    ) -> None:
        self._app = app
        self._sockets = list(sockets)
        self._limits = limits or Limits()
        self._at_once = at_once

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
    async def drain(self, *, others_go_on: bool = False) -> None:
        """
        Accept no more, answer what was asked, close.

        Nobody can connect to the sockets from then on, not even through another
        process that has them too, unless *others_go_on* there.
        """

    async def _last_call(self, *, others_go_on: bool) -> None:
        """Let nobody else connect, and wait for who has begun to, and for what is on its way."""
        if not others_go_on:
            refuse(self._sockets)
        await asyncio.sleep(LAST_CALL_SECONDS)


class PublicListener(Listener):
    """
    Tornado's own server, with TLS if *tls* is given.

    Connections beyond their limit are accepted and closed at once, so that
    descriptors are left for everything else.
    """

    def __init__(
        self,
        app: WebApplication,
        sockets: Sequence[socket.socket],
        *,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
        at_once: int | None = None,
    ) -> None:
        super().__init__(app, sockets, limits=limits, at_once=at_once)
        self._server = PublicServer(
            app,
            ssl_options=tls,
            max_header_size=MAX_HEAD_BYTES,
            # Bodies are bounded by the application, which can say so kindly.
            max_body_size=2**62,
            limits=self._limits,
            bad_request=Answers(is_https=app.services.cookie.is_secure).bad_request,
            at_once=at_once,
        )

    def renew(self, tls: ssl.SSLContext | None) -> None:
        """Use *tls* for everybody who connects from now on."""
        self._server.ssl_options = tls

    @property
    def connections(self) -> int:
        return len(self._server.streams)

    async def start(self) -> None:
        for sock in self._sockets:
            _limit_unread(sock, self._limits.write)
        self._server.add_sockets(self._sockets)

    async def drain(self, *, others_go_on: bool = False) -> None:
        # From now on every answer says `Connection: close`, and is the last one there.
        self._server.conn_params.no_keep_alive = True
        await self._last_call(others_go_on=others_go_on)
        self._server.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._answer_all()
        await self._server.close_all_connections()

    async def _answer_all(self) -> None:
        # Whoever asked before we stopped was not told that there will be no other answer, and may ask again.
        await self._app.in_flight.wait_until_quiet(LAST_CALL_SECONDS)
        # What was answered may not have been read yet, and would be lost with its connection.
        unread = [stream.write(b"") for stream in self._server.streams if stream.writing()]
        await asyncio.gather(*unread, return_exceptions=True)


class InternalListener(Listener):
    """Our server on llhttp, with a short way for `/check-token`."""

    @property
    def connections(self) -> int:
        return self._server.connections

    async def start(self) -> None:
        self._server = LLHTTPServer(self._app, limits=self._limits, at_once=self._at_once)
        await self._server.start(self._sockets)

    async def drain(self, *, others_go_on: bool = False) -> None:
        # As there.
        self._server.is_draining = True
        await self._last_call(others_go_on=others_go_on)
        await self._server.drain(DRAIN_SECONDS)


def _limit_unread(sock: socket.socket, seconds: float) -> None:
    """Have the kernel hang up on clients that read nothing of an answer for *seconds*; Tornado waits for ever."""
    # Connections inherit it from the socket that accepts them (tcp(7)). Only Linux has it, and not for unix sockets.
    if sock.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * seconds))
