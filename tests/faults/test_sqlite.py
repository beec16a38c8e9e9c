"""SQLite's file removed, replaced, damaged and mended under a server that has it open."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from tests.fakes import ManualClock
from tornado_ds.app import prepare_database
from tornado_ds.errors import StorageError
from tornado_ds.feed import Feed
from tornado_ds.key_file import open_key_ring
from tornado_ds.settings import Settings
from tornado_ds.snapshot import SessionEvent, SessionSnapshot, Standing
from tornado_ds.storage.database import Database, sqlite_url
from tornado_ds.storage.sql import SQLAlchemyUserStore, SQLSessionStore
from tornado_ds.tokens import Claims
from tornado_ds.users import User

ALICE, BOB = User("alice", "x"), User("bob", "x")

pytestmark = pytest.mark.gen_test(timeout=30)


@pytest.fixture
def users(sqlite_file: Path, io_loop: IOLoop) -> Iterator[SQLAlchemyUserStore]:
    """The users of an SQLite database that is open; alice is one of them."""
    database = Database(sqlite_url(str(sqlite_file)), seconds=1)
    users = SQLAlchemyUserStore(database)
    io_loop.run_sync(lambda: users.add([ALICE]))
    yield users
    io_loop.run_sync(database.close)


async def test_nothing_is_acknowledged_when_the_file_was_removed(users: SQLAlchemyUserStore, sqlite_file: Path) -> None:
    """The file lives on for whoever has it open, but nobody would ever see again what is written there."""
    elsewhere = sqlite_file.with_name("elsewhere")
    _move(sqlite_file, elsewhere)

    for use in (users.get("alice"), users.add([BOB])):
        with pytest.raises(StorageError, match=r"^the database failed: unable to open database file$"):
            await use
    _move(elsewhere, sqlite_file)

    assert await users.get("alice") is not None
    assert await users.get("bob") is None


async def test_command_makes_no_other_file_when_the_file_was_removed(
    users: SQLAlchemyUserStore, sqlite_file: Path
) -> None:
    """The server would take an empty one for its database, and would not wait for the right one to come back."""
    settings = Settings(data_dir=sqlite_file.parent)
    open_key_ring(settings.key_file, "HS256", now=0)
    elsewhere = sqlite_file.with_name("elsewhere")
    _move(sqlite_file, elsewhere)

    with pytest.raises(StorageError, match=r"has keys but no database: restore it"):
        await prepare_database(settings)
    found = _files_beside(elsewhere)
    _move(elsewhere, sqlite_file)

    assert sqlite_file.name not in found
    assert await users.get("alice") is not None


async def test_other_file_is_used_when_it_takes_the_place(users: SQLAlchemyUserStore, sqlite_file: Path) -> None:
    """A backup that is put in the place of the database is what counts from then on."""
    backup = _back_up(sqlite_file)
    await users.add([BOB])

    _restore(backup, sqlite_file)
    lost = await users.get("bob")
    await users.add([BOB])

    assert lost is None
    with closing(sqlite3.connect(sqlite_file)) as other:
        assert other.execute("SELECT count(*) FROM users").fetchone() == (2,)


async def test_ends_are_heard_of_when_an_older_state_was_restored(sqlite_file: Path, clock: ManualClock) -> None:
    """Numbers of events are given out again then, and none may be taken for one that is known."""
    database = Database(sqlite_url(str(sqlite_file)), seconds=1)
    store, snapshot = SQLSessionStore(database), SessionSnapshot(clock=clock, stale_for=300)
    feed = Feed(store, snapshot=snapshot, clock=clock)
    await store.record([_end_of("one")])
    backup = _back_up(sqlite_file)
    await store.record([_end_of("two"), _end_of("three")])
    await feed.read()
    follower = feed.follow(3)
    heard = [await anext(follower) for _ in range(2)]

    _restore(backup, sqlite_file)
    await store.record([_end_of("four")])
    await feed.read()

    standings = [snapshot.standing(_claims_of(sid)) for sid in ("one", "two", "three", "four", "five")]
    assert standings == [Standing.ENDED] * 4 + [Standing.LIVE]
    assert [False, False, True] == [batch.is_reset for batch in [*heard, *[batch async for batch in follower]]]
    await database.close()


async def test_nothing_is_acknowledged_when_the_file_was_replaced_in_the_middle(
    users: SQLAlchemyUserStore, sqlite_file: Path
) -> None:
    """A transaction that began on the file of before does not end well."""
    database = Database(sqlite_url(str(sqlite_file)), seconds=1)
    backup = _back_up(sqlite_file)

    with pytest.raises(StorageError, match=r"^the database does not answer: the file is gone, or another one"):
        await _add_and_restore(database, backup, sqlite_file)

    assert await users.get("bob") is None
    await database.close()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:4096] + b"\xff" * (len(content) - 4096), id="all-but-the-first-page"),
        pytest.param(lambda content: b"\0" * len(content), id="zeros"),
        pytest.param(lambda content: content[: len(content) // 2], id="cut-in-half"),
        pytest.param(lambda content: b"Dear database, " * 5000, id="something-else"),
    ],
)
async def test_database_works_again_when_its_file_was_damaged_and_mended(
    users: SQLAlchemyUserStore, sqlite_file: Path, damage: Callable[[bytes], bytes]
) -> None:
    """Damage is our trouble and no answer about a user; once it is mended, the same server goes on."""
    backup = _back_up(sqlite_file)
    damaged = sqlite_file.with_name("damaged")
    damaged.write_bytes(damage(backup.read_bytes()))
    _restore(damaged, sqlite_file)

    for use in (users.get("alice"), users.add([BOB])):
        with pytest.raises(StorageError, match=r"^the database failed: "):
            await use
    _restore(backup, sqlite_file)

    assert await users.get("alice") is not None
    await users.add([BOB])


async def test_nothing_is_acknowledged_when_sqlite_says_that_the_disk_is_full(
    users: SQLAlchemyUserStore, sqlite_file: Path
) -> None:
    """A transaction is given up as a whole, and the next one works once there is room; numbers run out here."""
    database = Database(sqlite_url(str(sqlite_file)), seconds=1)
    await _add_and_record(database)
    _set_last_event(sqlite_file, 2**63 - 1)

    with pytest.raises(StorageError, match=r"^the database failed: database or disk is full$"):
        await _add_and_record(database, BOB)
    lost = await users.get("bob")
    _set_last_event(sqlite_file, 1)
    await _add_and_record(database, BOB)

    assert lost is None
    assert await users.get("bob") is not None
    await database.close()


def _set_last_event(file: Path, number: int) -> None:
    """Have SQLite believe that the newest event has *number*; above the highest there is no room (autoinc.html)."""
    with closing(sqlite3.connect(file)) as other, other:
        other.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'session_events'", [number])


async def _add_and_record(database: Database, *users: User) -> None:
    async with database.transaction():
        await SQLAlchemyUserStore(database).add(users)
        await SQLSessionStore(database).record([_end_of("one")])


def _end_of(sid: str) -> SessionEvent:
    return SessionEvent(
        kind="session.ended", username="alice", sid=sid, created_at=1_800_000_000, expires_at=1_800_001_000
    )


def _claims_of(sid: str) -> Claims:
    times = {"issued_at": 1_800_000_000, "expires_at": 1_800_001_000}
    return Claims(username="alice", sid=sid, version=1, server_data={}, client_data={}, **times)


async def _add_and_restore(database: Database, backup: Path, file: Path) -> None:
    async with database.transaction():
        await SQLAlchemyUserStore(database).add([BOB])
        _restore(backup, file)


def _move(file: Path, to: Path) -> None:
    file.rename(to)


def _files_beside(file: Path) -> list[str]:
    return [found.name for found in file.parent.iterdir()]


def _back_up(file: Path) -> Path:
    backup = file.with_name("backup")
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    return backup


def _restore(backup: Path, file: Path) -> None:
    """Put a copy of *backup* in the place of the database, as docs and operators do."""
    for suffix in ("-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    Path(shutil.copy(backup, file.with_name("copy"))).replace(file)
