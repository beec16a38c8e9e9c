"""What is in the way of the server's work, told in time and without asking the database too often."""

import asyncio

import pytest

from tests.fakes import ManualClock
from tornado_ds.errors import StorageError
from tornado_ds.readiness import KEEP_SECONDS, MAX_FEED_AGE, Readiness
from tornado_ds.snapshot import SessionSnapshot

pytestmark = pytest.mark.gen_test


class Tables:
    """A database that knows its revision, unless it is away."""

    def __init__(self) -> None:
        self.revision: str | None = "0002"
        self.error: StorageError | None = None
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.asked = 0

    async def answer(self) -> str | None:
        """Answer once it is open."""
        self.asked += 1
        await self.is_open.wait()
        if self.error is not None:
            raise self.error
        return self.revision


@pytest.fixture
def tables() -> Tables:
    """A database with the right tables."""
    return Tables()


@pytest.fixture
def snapshot(clock: ManualClock) -> SessionSnapshot:
    """A snapshot that was read a moment ago."""
    snapshot = SessionSnapshot(clock=clock, stale_for=300)
    snapshot.mark_read()
    return snapshot


@pytest.fixture
def readiness(tables: Tables, snapshot: SessionSnapshot, clock: ManualClock) -> Readiness:
    """What is to be tested, over `tables`."""
    return Readiness(revision=tables.answer, needed="0002", snapshot=snapshot, clock=clock)


async def test_nothing_is_in_the_way_when_all_is_well(readiness: Readiness) -> None:
    """No news is good news."""
    assert await readiness.obstacles() == {}


async def test_database_is_named_when_it_fails(readiness: Readiness, tables: Tables) -> None:
    """What its driver said is what the operator wants to know; its tables are not guessed at."""
    tables.error = StorageError("the database failed: connection refused")

    assert await readiness.obstacles() == {"database": "the database failed: connection refused"}


async def test_database_is_named_when_it_hangs(readiness: Readiness, tables: Tables) -> None:
    """The answer does not wait for the database, and nobody asks it again while it hangs."""
    tables.is_open.clear()

    found = [await readiness.obstacles() for _ in range(2)]

    assert found == [{"database": "the database does not answer within 0.8 s"}] * 2
    assert tables.asked == 1
    tables.is_open.set()


async def test_nothing_is_in_the_way_when_the_database_is_back(
    readiness: Readiness, tables: Tables, clock: ManualClock
) -> None:
    """What was wrong is forgotten after a second."""
    tables.error = StorageError("the database failed")
    await readiness.obstacles()
    tables.error = None

    at_once = await readiness.obstacles()
    clock.advance(KEEP_SECONDS)

    assert list(at_once) == ["database"]
    assert await readiness.obstacles() == {}


@pytest.mark.parametrize("revision", [None, "0001", "9999"])
async def test_migrations_are_named_when_the_tables_are_of_another_version(
    readiness: Readiness, tables: Tables, revision: str | None
) -> None:
    """Somebody upgraded the database, or restored an old one, while the server ran."""
    tables.revision = revision

    found = await readiness.obstacles()

    assert found == {"migrations": f"the database is at revision {revision or 'none'}, this version needs 0002"}


async def test_feed_is_named_when_it_was_not_read_lately(readiness: Readiness, clock: ManualClock) -> None:
    """Ends of sessions would come late, even if the database answers others."""
    clock.advance(MAX_FEED_AGE + 1)

    assert await readiness.obstacles() == {"feed": "the change feed was last read 6 s ago"}


async def test_feed_is_named_when_it_was_never_read(tables: Tables, clock: ManualClock) -> None:
    """A server that knows of no end of a session must not be asked."""
    snapshot = SessionSnapshot(clock=clock, stale_for=300)
    readiness = Readiness(revision=tables.answer, needed="0002", snapshot=snapshot, clock=clock)

    assert await readiness.obstacles() == {"feed": "the change feed was never read"}


async def test_draining_is_named_beside_everything_else(readiness: Readiness, tables: Tables) -> None:
    """All that is wrong is told at once."""
    tables.error = StorageError("the database failed")
    readiness.is_draining = True

    found = await readiness.obstacles()

    assert found == {"database": "the database failed", "draining": "the server is stopping"}


async def test_database_is_asked_once_when_many_ask_here(
    readiness: Readiness, tables: Tables, clock: ManualClock
) -> None:
    """A flood of probes is no flood of queries."""
    await asyncio.gather(*(readiness.obstacles() for _ in range(100)))
    clock.advance(KEEP_SECONDS / 2)
    await readiness.obstacles()

    assert tables.asked == 1
