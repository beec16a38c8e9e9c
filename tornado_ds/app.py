"""The composition root: settings in, services out, and everything undone in reverse at the end."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tornado_ds.accounts import Accounts
from tornado_ds.audit import Audit
from tornado_ds.checker import SessionChecker
from tornado_ds.clock import Clock, SystemClock
from tornado_ds.cookies import DeviceCookie, SessionCookie
from tornado_ds.devices import Devices
from tornado_ds.errors import StorageError
from tornado_ds.feed import Feed
from tornado_ds.gate import ConnectionGate
from tornado_ds.housekeeping import Housekeeping
from tornado_ds.key_file import open_key_ring
from tornado_ds.key_follower import KeyFollower
from tornado_ds.keys import KeyRing
from tornado_ds.passwords import PasswordHasher
from tornado_ds.readiness import Readiness
from tornado_ds.services import Services
from tornado_ds.sessions import Sessions
from tornado_ds.settings import Settings, make_data_dir, webhook_secret
from tornado_ds.snapshot import SessionSnapshot
from tornado_ds.storage import schema
from tornado_ds.storage.audit import SQLAuditStore
from tornado_ds.storage.database import COMMAND_SECONDS, SERVER_SECONDS, Database, parse_url, sqlite_url
from tornado_ds.storage.sql import SQLSessionStore
from tornado_ds.storage.throttle import SQLThrottleStore
from tornado_ds.stores import open_user_store
from tornado_ds.throttle import Throttle
from tornado_ds.tokens import TokenService

if TYPE_CHECKING:
    from tornado_ds.metrics import Metrics


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

    The embedded one is made at the first start, and never again.

    Raises:
        SchemaError: It has not; the text names the command.
        StorageError: It cannot be reached, or is lost.
    """
    if settings.uses_embedded_database:
        await _prepare_embedded_database(settings)
    else:
        await check_database(settings, seconds=COMMAND_SECONDS)


async def _prepare_embedded_database(settings: Settings) -> None:
    make_data_dir(settings)
    is_first = is_first_start(settings)
    check_not_lost(settings)
    async with open_database(settings, seconds=COMMAND_SECONDS, may_create=is_first) as database:
        revision = await schema.current_revision(database)
        if revision is None and not is_first:
            raise _lost(settings)
        if revision != schema.head_revision():
            await schema.upgrade(database)
        await schema.check_schema(database)


def is_first_start(settings: Settings) -> bool:
    """
    True until there are keys, which are made last: the embedded database may have to be made yet.

    Beside keys, one that is not there is lost. Made anew it would know of no session
    that has ended, and the tokens of those would be good again.
    """
    return settings.uses_embedded_database and not is_there(settings.key_file)


def check_not_lost(settings: Settings) -> None:
    """
    Accept an embedded database that is there, or may be made yet.

    Raises:
        StorageError: It is neither.
    """
    # In this order: whoever makes keys and database meanwhile makes the database first.
    if not settings.uses_embedded_database or is_first_start(settings) or has_database(settings):
        return
    raise _lost(settings)


def _lost(settings: Settings) -> StorageError:
    return StorageError(
        f"{settings.data_dir} has keys but no database: restore it from a backup,"
        " or `python -m tornado_ds db upgrade` makes an empty one"
    )


def has_database(settings: Settings) -> bool:
    """True if there is an embedded database, and more than an empty file."""
    try:
        return settings.uses_embedded_database and settings.sqlite_path.stat().st_size > 0
    except OSError:
        return False


def missing_files(settings: Settings) -> list[Path]:
    """Return which files a start would make in `data_dir`, beside the database."""
    needed = [settings.key_file, *([settings.secret_file] if settings.webhook.secret is None else [])]
    return [file for file in needed if not is_there(file)]


def is_there(path: Path) -> bool:
    """True if *path* exists, and can be seen from here."""
    # Path.exists fails in a folder that we may not enter.
    return os.path.exists(path)  # noqa: PTH110


async def check_database(settings: Settings, *, seconds: float = SERVER_SECONDS) -> None:
    """
    Accept a database that has this version's tables, and make nothing.

    Raises:
        SchemaError, StorageError: As `prepare_database` says.
    """
    async with open_database(settings, seconds=seconds) as database:
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
    # Not at the top: whether its figures are summed over workers is decided when it is imported.
    from tornado_ds.metrics import Metrics

    async with open_database(settings, seconds=seconds) as database:
        # Workers share the cores.
        threads = max(1, (os.cpu_count() or 1) // settings.workers)
        passwords = PasswordHasher(cost=settings.passwords.bcrypt_cost, threads=threads)
        services = _connect(settings, clock, database, passwords, secret, keys, Metrics())
        try:
            yield services
        finally:
            passwords.close()
            await services.audit.close()


def _connect(
    settings: Settings,
    clock: Clock,
    database: Database,
    passwords: PasswordHasher,
    secret: str,
    keys: KeyRing,
    metrics: "Metrics",
) -> Services:
    users = open_user_store(settings.user_store, database)
    store = SQLSessionStore(database)
    tokens = TokenService(keys, clock=clock, issuer=settings.token.issuer, audience=settings.token.audience)
    snapshot = SessionSnapshot(clock=clock, stale_for=settings.webhook.stale_for)
    audit = Audit(SQLAuditStore(database), clock=clock, keep=settings.audit.keep)
    sessions = Sessions(
        store,
        tokens=tokens,
        snapshot=snapshot,
        audit=audit,
        clock=clock,
        idle_timeout=settings.session.idle_timeout,
        absolute_timeout=settings.session.absolute_timeout,
        max_per_user=settings.session.max_per_user,
        metrics=metrics,
    )
    throttle = Throttle(SQLThrottleStore(database), keys=lambda: tokens.keys, clock=clock)
    accounts = Accounts(
        users,
        passwords=passwords,
        throttle=throttle,
        sessions=sessions,
        audit=audit,
        min_password_length=settings.passwords.min_length,
        metrics=metrics,
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
        audit=audit,
        accounts=accounts,
        tokens=tokens,
        key_follower=KeyFollower(settings.key_file, settings.token.algorithm, tokens=tokens),
        snapshot=snapshot,
        sessions=sessions,
        feed=Feed(store, snapshot=snapshot, clock=clock),
        housekeeping=Housekeeping(
            store,
            throttle=throttle,
            audit=audit,
            clock=clock,
            keep_ended=settings.session.keep_ended,
            metrics=metrics,
        ),
        checker=checker,
        cookie=cookie,
        devices=Devices(DeviceCookie(settings.public_url), keys=lambda: tokens.keys, clock=clock),
        gate=gate,
        readiness=Readiness(
            revision=lambda: schema.current_revision(database),
            needed=schema.head_revision(),
            snapshot=snapshot,
            clock=clock,
        ),
        metrics=metrics,
    )


@asynccontextmanager
async def following(services: Services) -> AsyncIterator[None]:
    """
    The feed is read once before, and followed meanwhile, as is the key file.

    What was noted for the audit trail is written, and old rows are pruned.
    """
    await services.feed.read()
    workers = (services.feed, services.key_follower, services.audit, services.housekeeping)
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
