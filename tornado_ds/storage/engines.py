"""Engines for the two databases, with limits, and with connections that are given up once no good can come of them."""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import aiosqlite
from sqlalchemy import URL, event
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

# PostgreSQL ends a transaction whose client fell silent. With `COMMAND_SECONDS`
# this bounds the life of our transactions; `Feed.OVERLAP_SECONDS` relies on it.
IDLE_TRANSACTION_SECONDS = 10.0

# An execution option of a transaction that will write: for how many seconds it may wait for others who do.
MAY_WAIT = "tornado_ds_may_wait"

# What SQLite says of a file that is damaged, gone or another one: a connection
# remembers pages of it, so the next attempt needs a new one.
_SQLITE_FAULTS = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_READONLY,
}


def sqlite_engine(url: URL, seconds: float) -> AsyncEngine:
    """Return an engine for an SQLite file; reading waits at most *seconds* for a lock, writing for `MAY_WAIT`."""
    engine = create_async_engine(
        url,
        hide_parameters=True,
        # To open one takes longer than most of what is done with it, so all of them stay open.
        pool_size=15,
        max_overflow=0,
        pool_timeout=1,
        # Those that were used last: each of them remembers statements, and some of the file.
        pool_use_lifo=True,
        connect_args={"timeout": seconds, "isolation_level": None, "async_creator_fn": _open_sqlite},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        _keep_journal(connection, cursor, seconds)
        # Each connection would remember 2 MiB of the file, which the system does for all of them.
        for pragma in ("synchronous=FULL", "foreign_keys=ON", "cache_size=-256"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.execute("PRAGMA database_list")
        ((_, _, path),) = cursor.fetchall()
        cursor.close()
        entry.info["path"], entry.info["file"] = path, _identity(path)

    @event.listens_for(engine.sync_engine, "checkout")
    def check(_: DBAPIConnection, entry: ConnectionPoolEntry, __: PoolProxiedConnection) -> None:
        _check_file(entry.info)

    @event.listens_for(engine.sync_engine, "commit")
    def check_again(connection: Connection) -> None:
        # It may have waited for whoever replaced the file.
        _check_file(connection.info)

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and then writes fails at once, without
        # waiting, if somebody else wrote in between; so writers say so first.
        seconds = connection.get_execution_options().get(MAY_WAIT)
        if seconds is None:
            # Each SELECT sees one state of the file by itself, and who reads more needs no more, as on PostgreSQL.
            return
        # In steps, so that it mostly is what it was: each statement is some way through threads.
        busy_timeout = max(int(10 * seconds), 1) * 100
        if connection.info.get("busy_timeout") != busy_timeout:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {busy_timeout}")
            connection.info["busy_timeout"] = busy_timeout
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    @event.listens_for(engine.sync_engine, "handle_error")
    def judge(context: ExceptionContext) -> None:
        if sqlite_fault(context.original_exception) in _SQLITE_FAULTS:
            context.is_disconnect = True

    return engine


def sqlite_fault(error: BaseException | None) -> int:
    """Return the kind of an *error* of SQLite, such as `sqlite3.SQLITE_BUSY`; 0 for any other error."""
    # The low byte is the kind, the others are details.
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def postgresql_engine(url: URL, seconds: float) -> AsyncEngine:
    """Return an engine for a PostgreSQL database that is given *seconds* for a connection or a statement."""
    milliseconds = str(int(seconds * 1000))
    engine = create_async_engine(
        url,
        hide_parameters=True,
        pool_timeout=1,
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

    @event.listens_for(engine.sync_engine, "checkout")
    def check(_: DBAPIConnection, entry: ConnectionPoolEntry, __: PoolProxiedConnection) -> None:
        if entry.driver_connection is None or entry.driver_connection.is_closed():
            raise DisconnectionError("the server has closed the connection")

    @event.listens_for(engine.sync_engine, "close")
    def abort(_: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        # Otherwise the driver takes leave, and waits for an answer that a server behind a dead line does not give.
        if entry.driver_connection is not None:
            entry.driver_connection.terminate()

    return engine


def _keep_journal(connection: Any, cursor: Any, seconds: float) -> None:
    """Have readers and a writer side by side in the file; where somebody else is about to make it, wait for that."""
    give_up_at = time.monotonic() + seconds
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as exc:
            # It is told at once, without the usual wait, so as not to block the other one for ever.
            if sqlite_fault(exc) != sqlite3.SQLITE_BUSY or time.monotonic() >= give_up_at:
                raise
            connection.run_async(lambda _: asyncio.sleep(0.02))


def _check_file(info: Mapping[str, Any]) -> None:
    # A file that was removed or replaced lives on for whoever has it open;
    # what is written there is lost.
    if _identity(info["path"]) != info["file"]:
        raise DisconnectionError("the file is gone, or another one is in its place")


async def _open_sqlite(database: str, **options: Any) -> aiosqlite.Connection:
    """Return what aiosqlite opens; where it cannot, none of its threads is left either."""
    _make_private(database)
    connection = aiosqlite.connect(database, **options)
    # So that no thread outlives us; SQLAlchemy does the same where it opens the file itself.
    connection._thread.daemon = True
    try:
        return await connection
    except sqlite3.Error:
        # The thread says goodbye to the loop; were that closed by then, as it
        # soon is in a command, there would be a traceback of it.
        await asyncio.to_thread(connection._thread.join)
        raise


def _make_private(uri: str) -> None:
    """Make the file, if SQLite may make it, for its owner alone; what SQLite puts beside it is for the same ones."""
    parts = urlsplit(uri)
    # SQLite would let everybody read it; and where we cannot make it, SQLite says why.
    if parts.query == "mode=rwc":
        with contextlib.suppress(OSError):
            os.close(os.open(unquote(parts.path), os.O_RDWR | os.O_CREAT, 0o600))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # asked each time a connection is used
    except OSError:
        return None
    return found.st_dev, found.st_ino
