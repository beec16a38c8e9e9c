"""One database: transactions that nest, an end to all waiting, and errors in our own words."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from datetime import UTC
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, func, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from tornado_ds.errors import SettingsError, StorageError
from tornado_ds.storage.engines import MAY_WAIT, postgresql_engine, sqlite_engine, sqlite_fault

# A server answers in time or says that it cannot; a command may take longer, say
# to end a hundred thousand sessions at once.
SERVER_SECONDS = 1.2
COMMAND_SECONDS = 30.0


class Database:
    """
    Hands out connections for at most *seconds*, and translates what goes wrong into `StorageError`.

    A transaction that is opened inside another one of the same task joins it.
    """

    def __init__(self, url: URL, *, seconds: float = SERVER_SECONDS) -> None:
        self.url = url
        self._seconds = seconds
        is_sqlite = url.get_backend_name() == "sqlite"
        self._engine = (sqlite_engine if is_sqlite else postgresql_engine)(url, seconds)
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
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._seconds
        async with self._translated(), self._turn, self._connected() as connection:
            await connection.execution_options(**{MAY_WAIT: deadline - loop.time()})
            reset = self._joined.set(connection)
            try:
                async with connection.begin():
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
        async with self._translated(), self._connected() as connection:
            yield connection

    async def now(self) -> float:
        """Return the time by the database's own clock, in seconds since the epoch."""
        async with self.read() as connection:
            moment = (await connection.execute(select(func.now()))).scalar_one()
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()

    async def close(self) -> None:
        """Give all connections back."""
        await self._engine.dispose()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        """
        A connection that is broken off when its time is over.

        Cancelling alone would not do: a rollback and a goodbye would still be said,
        and waited for, on a line that may be dead.
        """
        connection = self._engine.connect()
        timer = asyncio.get_running_loop().call_later(self._seconds, _break_off, connection)
        try:
            async with connection:
                yield connection
        finally:
            timer.cancel()

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            # Later than connections are broken off: the pool learns from that.
            async with asyncio.timeout(self._seconds + 0.1):
                yield
        except DBAPIError as exc:
            # The driver's own words only: SQLAlchemy's hold the statement.
            raise StorageError(f"the database failed: {_first_line(exc.orig)}{_advice(exc.orig)}") from exc
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
    if url.get_backend_name() == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise SettingsError(
                "database_url: SQLite needs the path of a file, such as sqlite:////var/lib/auth.sqlite3"
            )
        return sqlite_url(str(url.database), may_create=may_create)
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


def _break_off(connection: AsyncConnection) -> None:
    """Have whatever waits for *connection* fail now; SQLite, which is in this machine, ends by itself."""
    sync = connection.sync_connection
    driver = None if sync is None or sync.closed or sync.invalidated else sync.connection.driver_connection
    if driver is not None and hasattr(driver, "terminate"):
        driver.terminate()


def _advice(error: BaseException | None) -> str:
    is_damaged = sqlite_fault(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return "; restore it from a backup (docs/backup-and-upgrade.md)" if is_damaged else ""


def _first_line(error: BaseException | None) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
