"""A running server: both listeners, the feed, the signals, and one or several processes."""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog
import uvloop

from tornado_ds.addresses import UNIX
from tornado_ds.app import check_database, following, is_there, open_services, prepare_database
from tornado_ds.errors import SettingsError
from tornado_ds.handlers.routes import make_app, make_internal_app
from tornado_ds.key_file import open_key_ring
from tornado_ds.listeners import InternalListener, Listener, PublicListener
from tornado_ds.services import Services
from tornado_ds.settings import Settings, UnixAddress, webhook_secret
from tornado_ds.sockets import Sockets, open_sockets, refuse
from tornado_ds.stores import find_user_store
from tornado_ds.tls import open_tls
from tornado_ds.workers import Workers

log = structlog.get_logger("server")

OBSERVE_SECONDS = 0.25

# A worker that accepted all who wait would have to serve them alone.
_AT_ONCE_OF_WORKERS = 16

# prometheus_client, when it is imported, looks here whether processes add up their figures.
_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


def run(settings: Settings) -> None:
    """
    Serve until SIGTERM or SIGINT, with as many processes as the settings say.

    Raises:
        TornadoDSError: It cannot start; the text says what to do.
    """
    # All that it asks for to be read again is still to be read.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _raise_descriptor_limit()
    _warn(settings)
    # Here only to see that they can be had: workers would fail one by one, and after files were made.
    open_tls(settings.tls)
    find_user_store(settings.user_store)
    _make_files(settings)
    with open_sockets(settings) as sockets:
        if settings.workers == 1:
            uvloop.run(serve(settings, sockets))
        else:
            _run_workers(settings, sockets)


async def serve(settings: Settings, sockets: Sockets, *, orphaned: int | None = None) -> None:
    """
    Serve on *sockets* until SIGTERM or SIGINT, then let requests in flight finish.

    The same happens when the file descriptor *orphaned* becomes readable.
    """
    stop, is_outdated = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    # Before anybody can have read that we are ready.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # And before anything is read that SIGHUP asks for to be read again.
    loop.add_signal_handler(signal.SIGHUP, is_outdated.set)
    if orphaned is not None:
        loop.add_reader(orphaned, _leave, orphaned, stop)
        # Here, because the figures of a process stay when it ends: a worker that is tried again
        # every few seconds, as long as the database is away, is not to leave any.
        await check_database(settings)
    at_once = None if orphaned is None else _AT_ONCE_OF_WORKERS
    async with open_services(settings) as services, following(services):
        public = PublicListener(make_app(services), sockets.public, tls=open_tls(settings.tls), at_once=at_once)
        internal = InternalListener(make_internal_app(services), sockets.internal, at_once=at_once)
        loop.add_signal_handler(signal.SIGHUP, _reload, services, public)
        if is_outdated.is_set():
            _reload(services, public)
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
            # A worker that is told to stop alone must not close the door for the others: their parent does that.
            others_go_on = orphaned is not None
            # One after the other: monitoring can still ask, and deepstream too, while people get their answers.
            await public.drain(others_go_on=others_go_on)
            services.feed.close()
            await internal.drain(others_go_on=others_go_on)
    if orphaned is not None:
        loop.remove_reader(orphaned)


def _leave(orphaned: int, stop: asyncio.Event) -> None:
    # It stays readable: to go on looking would keep the loop busy while requests in flight finish.
    asyncio.get_running_loop().remove_reader(orphaned)
    stop.set()


def _make_files(settings: Settings) -> None:
    """Make what is not there yet, and say so: here, so that workers do not do it side by side."""
    before = _files(settings)
    asyncio.run(prepare_database(settings))
    webhook_secret(settings)
    open_key_ring(settings.key_file, settings.token.algorithm, now=int(time.time()))
    if made := {name: file for name, file in _files(settings).items() if name not in before}:
        log.info("files made", **made)


def _files(settings: Settings) -> dict[str, str]:
    """Return which of the files are there that a first start makes."""
    files = {"database": settings.sqlite_path, "keys": settings.key_file, "webhook_secret": settings.secret_file}
    return {name: str(file) for name, file in files.items() if is_there(file)}


def _warn(settings: Settings) -> None:
    """Log what can be meant so, but seldom is."""
    if isinstance(settings.listen, UnixAddress) and UNIX not in settings.trusted_proxies:
        log.warning("failed logins of everybody count as one address: add `unix` to trusted_proxies")


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
    with tempfile.TemporaryDirectory(prefix="tornado_ds-metrics-") as folder:
        os.environ[_METRICS_FOLDER] = folder
        try:
            Workers(
                settings.workers,
                lambda orphaned: uvloop.run(serve(settings, sockets, orphaned=orphaned)),
                buried=_bury,
                stopping=lambda: refuse([*sockets.public, *sockets.internal]),
            ).run()
        finally:
            del os.environ[_METRICS_FOLDER]


def _bury(pid: int) -> None:
    from tornado_ds.metrics import forget_process

    forget_process(pid)


def _reload(services: Services, public: PublicListener) -> None:
    log.info("reloading")
    services.key_follower.hurry()
    try:
        public.renew(open_tls(services.settings.tls))
    except SettingsError as exc:
        log.error("certificate not reloaded", reason=str(exc))


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
