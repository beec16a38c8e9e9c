"""The composition root: settings in, a running server out, and everything undone in reverse at the end."""

import asyncio
import contextlib
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from tornado_ds.accounts import Accounts
from tornado_ds.checker import SessionChecker
from tornado_ds.clock import Clock, SystemClock
from tornado_ds.cookies import DeviceCookie, SessionCookie
from tornado_ds.devices import Devices
from tornado_ds.errors import SettingsError
from tornado_ds.feed import Feed
from tornado_ds.gate import ConnectionGate
from tornado_ds.handlers.routes import WebApplication, make_app, make_internal_app
from tornado_ds.housekeeping import Housekeeping
from tornado_ds.keys import KeyRing, open_key_ring
from tornado_ds.llhttp.framing import MAX_HEAD_BYTES
from tornado_ds.llhttp.server import BACKLOG
from tornado_ds.llhttp.server import Server as LLHTTPServer
from tornado_ds.passwords import PasswordHasher
from tornado_ds.services import Services
from tornado_ds.sessions import Sessions
from tornado_ds.settings import Address, Settings, make_data_dir, webhook_secret
from tornado_ds.snapshot import SessionSnapshot
from tornado_ds.storage import schema
from tornado_ds.storage.database import COMMAND_SECONDS, SERVER_SECONDS, Database, parse_url, sqlite_url
from tornado_ds.storage.sql import SQLSessionStore
from tornado_ds.storage.throttle import SQLThrottleStore
from tornado_ds.stores import open_user_store
from tornado_ds.throttle import Throttle
from tornado_ds.tokens import TokenService

log = structlog.get_logger("app")

DRAIN_SECONDS = 5.0


@asynccontextmanager
async def open_database(
    settings: Settings, *, seconds: float = SERVER_SECONDS, may_create: bool = False
) -> AsyncIterator[Database]:
    """A database as the settings name it, closed at the end."""
    if settings.database_url is None:
        url = sqlite_url(str(settings.sqlite_path.absolute()), may_create=may_create)
    else:
        url = parse_url(settings.database_url.get_secret_value(), may_create=may_create)
    database = Database(url, seconds=seconds)
    try:
        yield database
    finally:
        await database.close()


async def prepare_database(settings: Settings) -> None:
    """
    Bring the embedded database to this version's tables; of any other one, check that it has them.

    Raises:
        SchemaError: It has not; the text names the command.
        StorageError: It cannot be reached.
    """
    is_embedded = settings.uses_embedded_database
    if is_embedded:
        make_data_dir(settings)
    async with open_database(settings, seconds=COMMAND_SECONDS, may_create=is_embedded) as database:
        if is_embedded and await schema.current_revision(database) != schema.head_revision():
            await schema.upgrade(database)
        await schema.check_schema(database)


@asynccontextmanager
async def open_services(
    settings: Settings, *, seconds: float = SERVER_SECONDS, clock: Clock | None = None
) -> AsyncIterator[Services]:
    """
    All services over the database of *settings*, closed at the end.

    The snapshot is empty until `services.feed` is read or runs.

    Raises:
        SettingsError, KeyRingError: A file in `data_dir` cannot be used.
    """
    clock = clock or SystemClock()
    make_data_dir(settings)
    secret = webhook_secret(settings)
    keys = open_key_ring(settings.key_file, settings.token.algorithm, now=int(clock.now()))
    async with open_database(settings, seconds=seconds) as database:
        passwords = PasswordHasher(cost=settings.passwords.bcrypt_cost)
        try:
            yield _connect(settings, clock, database, passwords, secret, keys)
        finally:
            passwords.close()


def _connect(
    settings: Settings, clock: Clock, database: Database, passwords: PasswordHasher, secret: str, keys: KeyRing
) -> Services:
    users = open_user_store(settings.user_store, database)
    store = SQLSessionStore(database)
    tokens = TokenService(keys, clock=clock, issuer=settings.token.issuer, audience=settings.token.audience)
    snapshot = SessionSnapshot(clock=clock, stale_for=settings.webhook.stale_for)
    sessions = Sessions(
        store,
        tokens=tokens,
        snapshot=snapshot,
        clock=clock,
        idle_timeout=settings.session.idle_timeout,
        absolute_timeout=settings.session.absolute_timeout,
        max_per_user=settings.session.max_per_user,
    )
    throttle = Throttle(SQLThrottleStore(database), keys=lambda: tokens.keys, clock=clock)
    accounts = Accounts(
        users,
        passwords=passwords,
        throttle=throttle,
        sessions=sessions,
        min_password_length=settings.passwords.min_length,
    )
    checker = SessionChecker(tokens=tokens, snapshot=snapshot, users=users)
    cookie = SessionCookie(settings.public_url)
    gate = ConnectionGate(
        checker=checker,
        accounts=accounts,
        cookie=cookie,
        secret=secret,
        allowed_origins=settings.allowed_origins,
        credentials_login=settings.webhook.credentials_login,
    )
    return Services(
        settings=settings,
        clock=clock,
        users=users,
        passwords=passwords,
        throttle=throttle,
        accounts=accounts,
        tokens=tokens,
        snapshot=snapshot,
        sessions=sessions,
        feed=Feed(store, snapshot=snapshot, clock=clock),
        housekeeping=Housekeeping(store, throttle=throttle, clock=clock, keep_ended=settings.session.keep_ended),
        checker=checker,
        cookie=cookie,
        devices=Devices(DeviceCookie(settings.public_url), keys=lambda: tokens.keys, clock=clock),
        gate=gate,
    )


async def serve(settings: Settings) -> None:
    """
    Serve both listeners until SIGTERM or SIGINT, then let requests in flight finish.

    Raises:
        TornadoDSError: It cannot start; the text says what to do.
    """
    await prepare_database(settings)
    async with open_services(settings) as services, following(services):
        listeners: list[Listener] = [
            PublicListener(make_app(services), settings.listen, key="listen"),
            InternalListener(make_internal_app(services), settings.internal_listen, key="internal_listen"),
        ]
        signalled = _signalled()
        for listener in listeners:
            await listener.start()
        log.info("ready", url=settings.public_url, listen=str(settings.listen), internal=str(settings.internal_listen))
        await signalled.wait()
        log.info("stopping")
        services.feed.close()
        await asyncio.gather(*(listener.drain() for listener in listeners))


class Listener(ABC):
    """One address and the application that answers there, within the limits of a server on the open Internet."""

    def __init__(self, app: WebApplication, address: Address, *, key: str) -> None:
        self._app = app
        try:
            self._sockets = bind_sockets(address.port, address.host, backlog=BACKLOG)
        except OSError as exc:
            raise SettingsError(f"{key}: cannot listen on {address}: {exc.strerror}") from exc

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._sockets[0].getsockname()[1])

    @abstractmethod
    async def start(self) -> None:
        """Accept connections."""

    @abstractmethod
    async def drain(self) -> None:
        """Accept no more, answer what was asked, close."""


class PublicListener(Listener):
    """Tornado's own server."""

    async def start(self) -> None:
        self._server = HTTPServer(
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

    async def start(self) -> None:
        self._server = LLHTTPServer(self._app)
        await self._server.start(self._sockets)

    async def drain(self) -> None:
        await self._server.drain(DRAIN_SECONDS)


@asynccontextmanager
async def following(services: Services) -> AsyncIterator[None]:
    """The feed is read once before, and followed meanwhile; old rows are pruned."""
    await services.feed.read()
    tasks = [asyncio.create_task(services.feed.run()), asyncio.create_task(services.housekeeping.run())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _signalled() -> asyncio.Event:
    """Return what SIGTERM and SIGINT set from now on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
