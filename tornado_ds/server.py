"""A running server: both listeners, the feed, the signals, and one or several processes."""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog
import uvloop
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets

from tornado_ds.app import following, open_services, prepare_database
from tornado_ds.errors import SettingsError
from tornado_ds.handlers.routes import WebApplication, make_app, make_internal_app
from tornado_ds.key_file import open_key_ring
from tornado_ds.llhttp.framing import MAX_HEAD_BYTES
from tornado_ds.llhttp.server import BACKLOG
from tornado_ds.llhttp.server import Server as LLHTTPServer
from tornado_ds.services import Services
from tornado_ds.settings import Address, Settings, webhook_secret
from tornado_ds.workers import Workers

log = structlog.get_logger("server")

DRAIN_SECONDS = 5.0
OBSERVE_SECONDS = 0.25

# prometheus_client, when it is imported, looks here whether processes add up their figures.
_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


@dataclass(frozen=True, slots=True)
class Sockets:
    """What a server listens on, bound before there are workers, so that all of them share it."""

    public: Sequence[socket.socket]
    internal: Sequence[socket.socket]

    def close(self) -> None:
        """Close this process's hold on them."""
        for sock in (*self.public, *self.internal):
            sock.close()


def run(settings: Settings) -> None:
    """
    Serve until SIGTERM or SIGINT, with as many processes as the settings say.

    Raises:
        TornadoDSError: It cannot start; the text says what to do.
    """
    _raise_descriptor_limit()
    asyncio.run(prepare_database(settings))
    sockets = Sockets(
        public=listen_on(settings.listen, key="listen"),
        internal=listen_on(settings.internal_listen, key="internal_listen"),
    )
    try:
        if settings.workers == 1:
            uvloop.run(serve(settings, sockets))
        else:
            _run_workers(settings, sockets)
    finally:
        sockets.close()


async def serve(settings: Settings, sockets: Sockets, *, orphaned: int | None = None) -> None:
    """
    Serve on *sockets* until SIGTERM or SIGINT, then let requests in flight finish.

    The same happens when the file descriptor *orphaned* becomes readable.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Before anybody can have read that we are ready.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if orphaned is not None:
        loop.add_reader(orphaned, stop.set)
    async with open_services(settings) as services, following(services):
        loop.add_signal_handler(signal.SIGHUP, _reload, services)
        public = PublicListener(make_app(services), sockets.public)
        internal = InternalListener(make_internal_app(services), sockets.internal)
        await public.start()
        await internal.start()
        _spare_the_collector()
        async with _observed(services, {"public": public, "internal": internal}):
            log.info(
                "ready", url=settings.public_url, listen=str(settings.listen), internal=str(settings.internal_listen)
            )
            await stop.wait()
            log.info("stopping")
            services.readiness.is_draining = True
            # One after the other: monitoring can still ask, and deepstream too, while people get their answers.
            await public.drain()
            services.feed.close()
            await internal.drain()
    if orphaned is not None:
        loop.remove_reader(orphaned)


def listen_on(address: Address, *, key: str) -> Sequence[socket.socket]:
    """
    Return sockets that are bound to *address*.

    Raises:
        SettingsError: That is not possible; the text names the setting *key*.
    """
    try:
        return bind_sockets(address.port, address.host, backlog=BACKLOG)
    except OSError as exc:
        raise SettingsError(f"{key}: cannot listen on {address}: {exc.strerror}") from exc


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
    """Tornado's own server."""

    @property
    def connections(self) -> int:
        return self._server.connections

    async def start(self) -> None:
        self._server = _TornadoServer(
            self._app,
            idle_connection_timeout=10,
            body_timeout=5,
            max_header_size=MAX_HEAD_BYTES,
            # Bodies are bounded by the application, which can say so kindly.
            max_body_size=2**62,
        )
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


def _spare_the_collector() -> None:
    """
    Let the garbage collector leave alone what start-up has made.

    It lives as long as the process, and to go through all of it again takes longer
    than a check may; and most of what requests make is gone without a collector.
    """
    gc.freeze()
    gc.set_threshold(10_000)


def _raise_descriptor_limit() -> None:
    """Take as many descriptors as the system grants: each connection is one, and the usual 1024 are few."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _run_workers(settings: Settings, sockets: Sockets) -> None:
    # Made here, so that workers do not make them side by side.
    webhook_secret(settings)
    open_key_ring(settings.key_file, settings.token.algorithm, now=int(time.time()))
    with tempfile.TemporaryDirectory(prefix="tornado_ds-metrics-") as folder:
        os.environ[_METRICS_FOLDER] = folder
        try:
            Workers(
                settings.workers,
                lambda orphaned: uvloop.run(serve(settings, sockets, orphaned=orphaned)),
                buried=_bury,
            ).run()
        finally:
            del os.environ[_METRICS_FOLDER]


def _bury(pid: int) -> None:
    from tornado_ds.metrics import forget_process

    forget_process(pid)


def _reload(services: Services) -> None:
    log.info("reloading")
    services.key_follower.hurry()


@asynccontextmanager
async def _observed(services: Services, listeners: Mapping[str, Listener]) -> AsyncIterator[None]:
    """Figures that nobody else notes are noted meanwhile."""
    task = asyncio.create_task(_observe(services, listeners))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        services.metrics.settle()


async def _observe(services: Services, listeners: Mapping[str, Listener]) -> None:
    metrics, loop = services.metrics, asyncio.get_running_loop()
    metrics.workers.set(1)
    while True:
        for name, listener in listeners.items():
            metrics.connections.labels(name).set(listener.connections)
        metrics.feed_age.set(services.snapshot.age or 0)
        metrics.followers.set(services.feed.followers)
        metrics.hashing.set(services.passwords.pending)
        metrics.settle()
        expected = loop.time() + OBSERVE_SECONDS
        await asyncio.sleep(OBSERVE_SECONDS)
        metrics.loop_lag.observe(max(0.0, loop.time() - expected))
