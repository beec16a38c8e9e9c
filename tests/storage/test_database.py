"""A database that is away, locked, damaged or not ours: one error in our own words, and back as soon as it is."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tornado.ioloop import IOLoop

from tests.postgresql import PostgreSQL
from tornado_ds.errors import SettingsError, StorageError
from tornado_ds.storage.database import Database, parse_url, sqlite_url
from tornado_ds.storage.sql import SQLAlchemyUserStore
from tornado_ds.users import User, UserChanges

CANARY = "canary-5f1c9e"

ALICE = User(CANARY, CANARY, server_data={"note": CANARY})

pytestmark = pytest.mark.gen_test(timeout=30)


@pytest.fixture
def sqlite(sqlite_file: Path, io_loop: IOLoop) -> Iterator[Database]:
    """An SQLite database that answers quickly, or not at all."""
    database = Database(sqlite_url(str(sqlite_file)), seconds=1)
    yield database
    io_loop.run_sync(database.close)


async def test_sqlite_file_is_not_made_when_it_is_missing(tmp_path: Path) -> None:
    """A database that vanished is an error; an empty one in its place would know nobody and no ended session."""
    database = Database(parse_url(f"sqlite:///{tmp_path}/missing.sqlite3"))

    for use in (_read, _write):
        with pytest.raises(StorageError, match=r"^the database failed: unable to open database file$"):
            await use(database)

    assert os.listdir(tmp_path) == []  # noqa: PTH208
    await database.close()


async def test_sqlite_leaves_no_thread_behind_when_a_file_cannot_be_opened(tmp_path: Path) -> None:
    """A thread that says goodbye to a loop that is closed by then, as a command's soon is, ends in a traceback."""
    before = set(threading.enumerate())
    database = Database(parse_url(f"sqlite:///{tmp_path}/missing.sqlite3"))

    with pytest.raises(StorageError):
        await _read(database)

    left = [thread.name for thread in set(threading.enumerate()) - before if "_connection_worker" in thread.name]
    assert left == []
    await database.close()


async def test_sqlite_file_is_made_when_that_is_asked_for(tmp_path: Path) -> None:
    """The first start may make the file, whatever characters its path has."""
    path = tmp_path / "a b?c#d%41&mode=ro ü.sqlite3"
    database = Database(sqlite_url(str(path), may_create=True))

    async with database.transaction() as connection:
        await connection.execute(text("CREATE TABLE one (two)"))
    await database.close()

    assert path.exists()


async def test_sqlite_reports_a_lock_when_somebody_else_writes(sqlite: Database, sqlite_file: Path) -> None:
    """A writer that does not get its turn is told so within its time; readers are not held up."""
    with closing(sqlite3.connect(sqlite_file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(StorageError, match=r"^the database failed: database is locked$"):
            await _write(sqlite)
        found = await _read(sqlite)

    assert found is None
    await _write(sqlite)
    assert await _read(sqlite) is not None


async def test_sqlite_waits_for_a_lock_no_longer_than_the_transaction_may(sqlite: Database) -> None:
    """Also where the connection had been told to wait for longer, or for less."""
    allowed, waits = [10, 0.3, 0.3, 10], []

    for seconds in allowed:
        sqlite._seconds = seconds
        async with sqlite.transaction() as connection:
            waits.append((await connection.execute(text("PRAGMA busy_timeout"))).scalar_one())

    assert all(0 < wait <= 1000 * seconds for wait, seconds in zip(waits, allowed, strict=True))
    assert waits[3] > 300


async def test_sqlite_begins_no_transaction_to_read(sqlite: Database) -> None:
    """What reads for a long time must not keep the file's journal from being emptied."""
    async with sqlite.read() as connection:
        rows = (await connection.execute(text("SELECT 1"))).all()
        driver: Any = (await connection.get_raw_connection()).driver_connection
        is_open = driver.in_transaction

    assert (rows, is_open) == ([(1,)], False)


async def test_sqlite_waits_for_somebody_who_is_making_the_file(tmp_path: Path) -> None:
    """As when two servers start for the first time; SQLite itself turns the second one away at once."""
    path = tmp_path / "new.sqlite3"
    database = Database(sqlite_url(str(path), may_create=True), seconds=10)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("CREATE TABLE one (two)")
        reading = asyncio.ensure_future(_first_row(database))
        await asyncio.sleep(0.1)
        other.execute("COMMIT")

    assert await reading == ("one",)
    await database.close()


async def _first_row(database: Database) -> tuple[str, ...]:
    async with database.read() as connection:
        return tuple((await connection.execute(text("SELECT name FROM sqlite_master"))).one())


async def test_sqlite_can_be_read_when_it_is_read_only(sqlite: Database, sqlite_file: Path) -> None:
    """Without the right to write, nobody logs in, but those who are logged in stay so."""
    await _write(sqlite)
    await sqlite.close()
    _make_read_only(sqlite_file)

    with pytest.raises(StorageError, match=r"^the database failed: attempt to write a readonly database$"):
        await SQLAlchemyUserStore(sqlite).update(CANARY, UserChanges(disabled=True))
    found = await _read(sqlite)

    assert found is not None
    assert not found.is_disabled


async def test_sqlite_reports_damage_when_the_file_is_something_else(tmp_path: Path) -> None:
    """A file that is no database is an error, and is left as it is."""
    path = tmp_path / "letter.txt"
    path.write_text("Dear database, " * 1000)
    database = Database(sqlite_url(str(path)))

    with pytest.raises(StorageError, match=r"^the database failed: file is not a database; restore it from a backup"):
        await _write(database)

    assert path.read_text() == "Dear database, " * 1000
    await database.close()


async def test_postgresql_works_again_when_it_was_stopped(postgresql: PostgreSQL, postgresql_url: str) -> None:
    """While PostgreSQL is down there is one error; when it is back, the same object goes on."""
    database = Database(parse_url(postgresql_url))
    await _write(database)

    postgresql.stop()
    try:
        for use in (_read, _write, _read):
            with pytest.raises(StorageError, match=r"^the database "):
                await use(database)
    finally:
        postgresql.start()
    found = await _read(database)

    assert found is not None
    await database.close()


async def test_transaction_fails_when_postgresql_closes_its_connection(
    postgresql: PostgreSQL, postgresql_url: str
) -> None:
    """A transaction that loses its connection is undone, and the next one works."""
    database, other = Database(parse_url(postgresql_url)), Database(parse_url(postgresql_url))

    with pytest.raises(StorageError, match=r"^the database "):
        await _write_and_be_cut_off(database, other)
    lost = await _read(database)
    await _write(database)
    found = await _read(database)

    assert lost is None
    assert found is not None
    await database.close()
    await other.close()


async def test_query_ends_when_its_time_is_over(postgresql_url: str) -> None:
    """A query that takes too long is given up, and its connection is not used again in the middle of it."""
    database = Database(parse_url(postgresql_url), seconds=1)

    with pytest.raises(StorageError, match=r"^the database "):
        await _sleep(database)
    found = await _read(database)

    assert found is None
    await database.close()


async def test_lock_ends_when_its_time_is_over(postgresql_url: str) -> None:
    """Whoever waits for a row that somebody else holds is told so within its time."""
    database, other = Database(parse_url(postgresql_url), seconds=1), Database(parse_url(postgresql_url), seconds=30)
    await _write(database)
    changes = UserChanges(disabled=True)

    async with other.transaction():
        await SQLAlchemyUserStore(other).update(CANARY, changes)
        with pytest.raises(StorageError, match=r"^the database "):
            await SQLAlchemyUserStore(database).update(CANARY, changes)
    user = await SQLAlchemyUserStore(database).update(CANARY, changes)

    assert user.version == 3
    await database.close()
    await other.close()


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("postgresql://nobody:{canary}@/{name}?host={host}", id="unknown-user"),
        pytest.param("postgresql://postgres:{canary}@/missing?host={host}", id="unknown-database"),
        pytest.param("postgresql://postgres:{canary}@/{name}?host={host}/missing", id="nothing-there"),
        pytest.param("postgresql://postgres:{canary}@127.0.0.1:1/{name}", id="nobody-listens"),
        pytest.param("postgresql://postgres:{canary}@no-such-host.invalid/{name}", id="unknown-host"),
    ],
)
async def test_error_holds_no_password_when_postgresql_cannot_be_reached(postgresql_url: str, url: str) -> None:
    """Whatever is wrong with the server, the log does not get the password to it."""
    base, host = postgresql_url.split("?host=")
    database = Database(parse_url(url.format(canary=CANARY, name=base.rpartition("/")[2], host=host)))

    with pytest.raises(StorageError) as caught:
        await _read(database)

    assert CANARY not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    await database.close()


async def test_error_holds_no_statement_and_no_values_when_a_write_fails(database: Database) -> None:
    """Neither a username nor a hash gets into the log because a table is missing."""
    async with database.transaction() as connection:
        await connection.execute(text("ALTER TABLE users RENAME TO people"))

    with pytest.raises(StorageError) as caught:
        await _write(database)

    async with database.transaction() as connection:
        await connection.execute(text("ALTER TABLE people RENAME TO users"))
    message = str(caught.value)
    assert "users" in message
    assert [secret for secret in (CANARY, "SELECT", "INSERT", "parameters") if secret in message] == []
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("", id="empty"),
        pytest.param(CANARY, id="no-url"),
        pytest.param(f"mysql://root:{CANARY}@localhost/users", id="mysql"),
        pytest.param(f"postgresql://root:{CANARY}@localhost:port/users", id="bad-port"),
        pytest.param(f"nonsense://root:{CANARY}@localhost/users", id="unknown-scheme"),
        pytest.param("sqlite://", id="sqlite-in-memory"),
        pytest.param("sqlite:///", id="sqlite-nowhere"),
        pytest.param("sqlite:///:memory:", id="sqlite-in-memory-by-name"),
    ],
)
async def test_parse_url_names_the_key_when_the_url_cannot_be_used(url: str) -> None:
    """A database that we cannot use is a mistake in the settings, told without the password."""
    with pytest.raises(SettingsError, match=r"^database_url: ") as caught:
        parse_url(url)

    assert CANARY not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg"])
async def test_parse_url_takes_the_spellings_of_others(scheme: str, postgresql_url: str) -> None:
    """A URL from a hosting service or another tool works as it is."""
    database = Database(parse_url(postgresql_url.replace("postgresql", scheme, 1) + "&sslmode=disable"))

    found = await _read(database)

    assert found is None
    await database.close()


async def _read(database: Database) -> User | None:
    return await SQLAlchemyUserStore(database).get(CANARY)


async def _write(database: Database) -> None:
    await SQLAlchemyUserStore(database).add([ALICE])


async def _sleep(database: Database) -> None:
    async with database.read() as connection:
        await connection.execute(text("SELECT pg_sleep(20)"))


async def _write_and_be_cut_off(database: Database, other: Database) -> None:
    async with database.transaction() as connection:
        await _write(database)
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
        async with other.transaction() as operator:
            await operator.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


def _make_read_only(path: Path) -> None:
    """
    Let SQLite find that it may not write *path*; file permissions would not stop root.

    A database of a newer write version than it knows is read-only to it (file format, 1.3.3).
    """
    with path.open("r+b") as file:
        file.seek(18)
        file.write(bytes([3]))
