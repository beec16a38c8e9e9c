"""The contract of throttle stores on memory, SQLite and PostgreSQL, and servers that share a database."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from tests.fakes import ManualClock
from tornado_ds.errors import StorageError, ThrottledError
from tornado_ds.key_file import open_key_ring
from tornado_ds.keys import KeyRing
from tornado_ds.storage.database import Database, parse_url
from tornado_ds.storage.memory import MemoryThrottleStore
from tornado_ds.storage.throttle import SQLThrottleStore
from tornado_ds.throttle import UNKNOWN_SOURCE, Bucket, Source, Throttle, ThrottleStore

pytestmark = pytest.mark.gen_test(timeout=30)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, io_loop: IOLoop) -> Iterator[ThrottleStore]:
    """A store of each kind, with nothing in it."""
    if request.param == "memory":
        yield MemoryThrottleStore()
        return
    database = Database(parse_url(request.getfixturevalue(f"{request.param}_url")))
    yield SQLThrottleStore(database)
    io_loop.run_sync(database.close)


@pytest.fixture
def key_ring(tmp_path: Path) -> KeyRing:
    """What servers share besides the database."""
    return open_key_ring(tmp_path / "keys.json", "HS256", now=1)


def bucket(key: str, failures: int = 1, *, blocked_until: int = 0, expires_at: int = 1000) -> Bucket:
    """A bucket of an account."""
    return Bucket(
        kind="account", key=key, username=None, failures=failures, blocked_until=blocked_until, expires_at=expires_at
    )


async def fill(store: ThrottleStore, *buckets: Bucket) -> None:
    """Store *buckets*."""
    async with store.transaction():
        await store.take(buckets)
        await store.put(buckets)


async def count(throttle: Throttle, username: str, source: Source = UNKNOWN_SOURCE) -> None:
    """Count one attempt at a name that nobody has."""
    await throttle.count(throttle.attempt(username, source, user=None))


async def keys_in(store: ThrottleStore) -> list[str]:
    """Return the keys that are stored, in the order of the list."""
    return [bucket.key for bucket in await store.list(limit=100)]


async def test_take_returns_empty_buckets_when_nothing_is_stored(store: ThrottleStore) -> None:
    """They come in the order that they were asked for."""
    asked = [Bucket(kind="account", key="b", username="Bob"), Bucket(kind="address", key="a")]

    async with store.transaction():
        taken = await store.take(asked)

    assert asked == taken


async def test_take_returns_what_was_put(store: ThrottleStore) -> None:
    """Numbers come back as they were, and the name as it is now."""
    stored = [bucket("b", 7, blocked_until=2**40, expires_at=2**41), bucket("a", 2)]
    await fill(store, *stored)

    async with store.transaction():
        taken = await store.take([Bucket(kind="account", key="a"), Bucket(kind="account", key="b", username="Bob")])

    assert [stored[1], replace(stored[0], username="Bob")] == taken


async def test_put_forgets_buckets_without_failures(store: ThrottleStore) -> None:
    """After a good login there is nothing to keep."""
    await fill(store, bucket("a"), bucket("b"))

    await fill(store, bucket("a", 0))

    assert await keys_in(store) == ["b"]


async def test_list_shows_the_longest_blocked_first(store: ThrottleStore) -> None:
    """Then those with the most failures, and no more than asked for."""
    await fill(
        store, bucket("a", 9), bucket("b", 3), bucket("c", 5, blocked_until=10), bucket("d", 5, blocked_until=20)
    )

    listed = await store.list(limit=3)

    assert [bucket.key for bucket in listed] == ["d", "c", "a"]


async def test_clear_forgets_an_account_and_its_devices(store: ThrottleStore) -> None:
    """Accounts whose keys look alike stay."""
    await fill(store, bucket("a_"), bucket("a_/1"), bucket("a_/2"), bucket("ab/1"), bucket("a_b"))

    cleared = await store.clear("a_")

    assert cleared == 3
    assert {"ab/1", "a_b"} == set(await keys_in(store))


async def test_clear_forgets_everything_when_no_key_is_given(store: ThrottleStore) -> None:
    """It says how many there were."""
    await fill(store, bucket("a"), bucket("b"))

    cleared = await store.clear()

    assert cleared == 2
    assert await keys_in(store) == []


async def test_prune_forgets_expired_buckets_in_small_steps(store: ThrottleStore) -> None:
    """Each step takes no more than it may; what has not expired stays."""
    await fill(
        store, *(bucket(f"old{number}", 9, expires_at=500) for number in range(5)), bucket("new", expires_at=501)
    )

    steps = [await store.prune(expired_at=500, keep=100, limit=2) for _ in range(4)]

    assert steps == [2, 2, 1, 0]
    assert await keys_in(store) == ["new"]


async def test_prune_forgets_the_fewest_failures_first_when_there_are_too_many(store: ThrottleStore) -> None:
    """A flood of made-up names does not wash away the account that is under attack."""
    flood = [bucket(f"name{number}", 1, expires_at=2000 + number) for number in range(6)]
    await fill(store, bucket("attacked", 12, blocked_until=900, expires_at=1000), bucket("tried", 4), *flood)

    steps = [await store.prune(expired_at=0, keep=4, limit=3) for _ in range(3)]

    assert steps == [3, 1, 0]
    assert set(await keys_in(store)) == {"attacked", "tried", "name4", "name5"}


async def test_count_leaves_no_trace_when_it_refuses(
    store: ThrottleStore, key_ring: KeyRing, clock: ManualClock
) -> None:
    """An address that is blocked cannot fill the database with names."""
    throttle = Throttle(store, keys=lambda: key_ring, clock=clock)
    source = Source(address="203.0.113.9")
    for number in range(30):
        await count(throttle, f"name{number}", source)
    before = await store.list(limit=100)

    with pytest.raises(ThrottledError):
        await count(throttle, "another", source)

    assert len(before) == 31
    assert before == await store.list(limit=100)


async def test_count_lets_five_through_when_two_servers_are_asked_at_the_same_time(
    database_url: str, key_ring: KeyRing, clock: ManualClock
) -> None:
    """Attempts that run at the same time know of each other, on a new name too."""
    databases = [Database(parse_url(database_url), seconds=10) for _ in range(2)]
    servers = [Throttle(SQLThrottleStore(database), keys=lambda: key_ring, clock=clock) for database in databases]
    source = Source(address="203.0.113.9")

    results = await asyncio.gather(
        *(count(servers[number % 2], "alice", source) for number in range(24)), return_exceptions=True
    )

    for database in databases:
        await database.close()
    refused = [result for result in results if isinstance(result, BaseException)]
    assert len(refused) == 19
    assert {ThrottledError} == {type(error) for error in refused}


async def test_count_lets_thirty_through_when_many_names_come_from_one_address(
    database_url: str, key_ring: KeyRing, clock: ManualClock
) -> None:
    """An address is counted exactly, however many names it tries at once."""
    database = Database(parse_url(database_url), seconds=10)
    throttle = Throttle(SQLThrottleStore(database), keys=lambda: key_ring, clock=clock)
    source = Source(address="203.0.113.9")
    for number in range(25):
        await count(throttle, f"name{number}", source)

    results = await asyncio.gather(
        *(count(throttle, f"other{number}", source) for number in range(12)),
        return_exceptions=True,
    )

    await database.close()
    assert [ThrottledError] * 7 == [type(result) for result in results if isinstance(result, BaseException)]


async def test_prune_waits_for_nobody_when_rows_are_in_use(postgresql_url: str) -> None:
    """Housekeeping leaves to the next time what a login holds at this moment."""
    databases = [Database(parse_url(postgresql_url)) for _ in range(2)]
    ours, theirs = (SQLThrottleStore(database) for database in databases)
    await fill(ours, bucket("held", expires_at=1), bucket("free", expires_at=1))

    async with ours.transaction():
        await ours.take([bucket("held")])
        pruned = await theirs.prune(expired_at=1, keep=100, limit=10)

    assert pruned == 1
    assert await keys_in(ours) == ["held"]
    for database in databases:
        await database.close()


async def test_count_fails_when_the_database_fails(tmp_path: Path, key_ring: KeyRing, clock: ManualClock) -> None:
    """Without its memory the throttle lets nobody through, and does not call it a wrong password."""
    database = Database(parse_url(f"sqlite:///{tmp_path}/empty.sqlite3", may_create=True))
    throttle = Throttle(SQLThrottleStore(database), keys=lambda: key_ring, clock=clock)

    with pytest.raises(StorageError):
        await count(throttle, "alice")

    await database.close()
