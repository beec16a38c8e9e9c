"""One database: an engine with sane limits, transactions that nest, and errors in our own words."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, event, make_url
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from tornado_ds.errors import SettingsError, StorageError

# A server answers in time or says that it cannot; a command may take longer, say
# to end a hundred thousand sessions at once.
SERVER_SECONDS = 1.2
COMMAND_SECONDS = 30.0

# PostgreSQL ends a transaction whose client fell silent. With `COMMAND_SECONDS`
# this bounds the life of our transactions; `Feed.OVERLAP_SECONDS` relies on it.
IDLE_TRANSACTION_SECONDS = 10.0

_WRITES = "tornado_ds_writes"


class Database:
    """
    Hands out connections for at most *seconds*, and translates what goes wrong into `StorageError`.

    A transaction that is opened inside another one of the same task joins it.
    """

    def __init__(self, url: URL, *, seconds: float = SERVER_SECONDS) -> None:
        self.url = url
        self._seconds = seconds
        is_sqlite = url.get_backend_name() == "sqlite"
        self._reader = (_sqlite_engine if is_sqlite else _postgresql_engine)(url, seconds)
        self._writer = self._reader.execution_options(**{_WRITES: True})
        # SQLite has one writer at a time, and lets those who wait try again at odd
        # moments; in this process they queue in the order in which they came.
        self._turn: AbstractAsyncContextManager[Any] = asyncio.Lock() if is_sqlite else nullcontext()
        self._joined: ContextVar[AsyncConnection | None] = ContextVar("joined", default=None)

    @property
    def is_in_transaction(self) -> bool:
        """True inside `transaction`."""
        return self._joined.get() is not None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection whose writes are committed together at the end, or rolled back by an exception."""
        joined = self._joined.get()
        if joined is not None:
            yield joined
            return
        async with self._translated(), self._turn, self._writer.begin() as connection:
            reset = self._joined.set(connection)
            try:
                yield connection
            finally:
                self._joined.reset(reset)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read with; inside a transaction that of the transaction."""
        joined = self._joined.get()
        if joined is not None:
            yield joined
            return
        async with self._translated(), self._reader.connect() as connection:
            yield connection

    async def close(self) -> None:
        """Give all connections back."""
        await self._reader.dispose()

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._seconds):
                yield
        except DBAPIError as exc:
            # The driver's own words only: SQLAlchemy's hold the statement.
            raise StorageError(f"the database failed: {_first_line(exc.orig)}") from exc
        except UnicodeEncodeError as exc:
            raise StorageError("the database cannot take a text that is no Unicode") from exc
        except (SQLAlchemyError, OSError, TimeoutError) as exc:
            raise StorageError(f"the database does not answer: {_first_line(exc)}") from exc


def parse_url(text: str, *, may_create: bool = False) -> URL:
    """
    Return the URL of a database, with the driver that we use for it.

    SQLite files are opened only if they exist, unless *may_create*: a file that
    vanished would come back empty, with nobody in it and no session ended.

    Raises:
        SettingsError: It names a database that we have no driver for.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as exc:
        raise SettingsError("database_url: write postgresql://user:password@host/name or sqlite:///path") from exc
    if url.get_backend_name() == "sqlite" and url.database:
        return sqlite_url(url.database, may_create=may_create)
    if url.get_backend_name() in ("postgresql", "postgres"):
        return _postgresql_url(url)
    raise SettingsError(f"database_url: {url.drivername} is not supported; use postgresql:// or sqlite:///path")


def sqlite_url(path: str, *, may_create: bool = False) -> URL:
    """Return the URL of the SQLite file *path*; see `parse_url` for *may_create*."""
    mode = "rwc" if may_create else "rw"
    return URL.create("sqlite+aiosqlite", database=f"file:{quote(path)}?mode={mode}", query={"uri": "true"})


def _postgresql_url(url: URL) -> URL:
    # libpq and its tools say sslmode, asyncpg says ssl; the values are the same.
    query = {("ssl" if name == "sslmode" else name): value for name, value in url.query.items()}
    return url.set(drivername="postgresql+asyncpg", query=query)


def _sqlite_engine(url: URL, seconds: float) -> AsyncEngine:
    engine = create_async_engine(
        url,
        hide_parameters=True,
        pool_timeout=1,
        connect_args={"timeout": seconds * 0.4, "isolation_level": None},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and then writes fails at once, without
        # waiting, if somebody else wrote in between; so writers say so first.
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql_engine(url: URL, seconds: float) -> AsyncEngine:
    milliseconds = str(int(seconds * 1000))
    return create_async_engine(
        url,
        hide_parameters=True,
        pool_timeout=1,
        pool_pre_ping=True,
        connect_args={
            "timeout": seconds,
            "command_timeout": seconds,
            "server_settings": {
                "application_name": "tornado_ds",
                "statement_timeout": milliseconds,
                "idle_in_transaction_session_timeout": str(int(IDLE_TRANSACTION_SECONDS * 1000)),
            },
        },
    )


def _first_line(error: BaseException | None) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
