"""The change feed: what one process does, all others know after their next look."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from tests.fakes import ManualClock
from tornado_ds.errors import StorageError
from tornado_ds.feed import Feed
from tornado_ds.services import Services
from tornado_ds.snapshot import SessionEvent, SessionSnapshot
from tornado_ds.storage.database import COMMAND_SECONDS, Database, parse_url
from tornado_ds.storage.memory import MemorySessionStore
from tornado_ds.storage.sql import SQLSessionStore
from tornado_ds.users import UserChanges

PASSWORD = "correct horse battery staple"
NEW_PASSWORD = "a purple elephant in the rain"

pytestmark = pytest.mark.gen_test(timeout=30)


class AttentiveStore(SQLSessionStore):
    """A store that remembers from where on events were read, and which ones before that."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.asked: list[tuple[int, set[int]]] = []

    async def events(self, *, after: int, also: Collection[int] = (), **which: Any) -> Sequence[SessionEvent]:
        self.asked.append((after, set(also)))
        return await super().events(after=after, also=also, **which)


class UnreliableStore(MemorySessionStore):
    """A store that can be switched off."""

    is_down = False

    async def events(self, **which: Any) -> Sequence[SessionEvent]:
        if self.is_down:
            raise StorageError("the database does not answer")
        return await super().events(**which)


@pytest.fixture
def connect(postgresql_url: str, io_loop: IOLoop) -> Iterator[Callable[[], AttentiveStore]]:
    """Open stores over one PostgreSQL database, each as if in a process of its own."""
    databases: list[Database] = []

    def connect() -> AttentiveStore:
        databases.append(Database(parse_url(postgresql_url), seconds=COMMAND_SECONDS))
        return AttentiveStore(databases[-1])

    yield connect

    for database in databases:
        io_loop.run_sync(database.close)


@pytest.mark.parametrize(
    ("end", "denial"),
    [
        pytest.param(lambda it, sid: it.sessions.end(sid, reason="logout"), "session_ended", id="logout"),
        pytest.param(lambda it, _: it.sessions.end_all("alice", reason="logout"), "session_ended", id="all"),
        pytest.param(lambda it, _: it.sessions.end_all(None, reason="logout"), "session_ended", id="everybody"),
        pytest.param(lambda it, _: it.accounts.set_password("alice", NEW_PASSWORD), "session_ended", id="password"),
        pytest.param(lambda it, _: it.accounts.remove("alice"), "session_ended", id="removed"),
        pytest.param(
            lambda it, _: it.accounts.change("alice", UserChanges(disabled=True)), "account_disabled", id="disabled"
        ),
    ],
)
async def test_end_is_known_elsewhere_when_the_feed_is_read_once(
    services: Services, other_services: Services, end: Callable[[Services, str], Any], denial: str
) -> None:
    """A session that ends in one process ends there at once, and in any other with one look at the feed."""
    await _read(services, other_services)
    await services.accounts.add("alice", PASSWORD)
    opened = await services.accounts.log_in("alice", PASSWORD)

    await end(services, opened.session.sid)
    here = services.checker.check(opened.token)
    before = other_services.checker.check(opened.token)
    await _read(other_services)
    after = other_services.checker.check(opened.token)

    assert (here.denial, before.denial, after.denial) == (denial, None, denial)


async def test_change_is_known_elsewhere_when_the_feed_is_read_once(
    services: Services, other_services: Services
) -> None:
    """Another process sees that a token carries old data, and finds the new ones."""
    await _read(services, other_services)
    await services.accounts.add("alice", PASSWORD, server_data={"roles": []})
    opened = await services.accounts.log_in("alice", PASSWORD)

    await services.accounts.change("alice", UserChanges(server_data={"roles": ["editor"]}))
    await _read(other_services)
    stale = other_services.checker.check(opened.token)
    fresh = await other_services.checker.refresh(opened.claims)

    assert (stale.is_stale, stale.denial) == (True, None)
    assert fresh.claims is not None
    assert (fresh.claims.version, fresh.claims.server_data) == (2, {"roles": ["editor"]})


async def test_renewal_is_news_when_it_moves_the_end(services: Services, clock: ManualClock) -> None:
    """Whoever renews in a loop fills nobody's feed."""
    await _read(services)
    await services.accounts.add("alice", PASSWORD)
    opened = await services.accounts.log_in("alice", PASSWORD)
    clock.advance(1)

    renewed = [await services.accounts.renew(opened.claims) for _ in range(3)]
    events = await services.feed.read()

    assert [(event.kind, event.expires_at) for event in events] == [("session.renewed", opened.claims.expires_at + 1)]
    assert [each.claims.expires_at for each in renewed] == [opened.claims.expires_at + 1] * 3


async def test_read_takes_in_all_that_matters_when_it_is_the_first(database: Database, clock: ManualClock) -> None:
    """A process that starts knows every end and change of a token that could still be shown, from one query."""
    store = AttentiveStore(database)
    feed, snapshot = _follow(store, clock)
    now = int(clock.now())
    await store.record([_ended("over", expires_at=now), _ended("one"), _changed("alice", 2), _ended("two")])

    events = await feed.read()

    assert store.asked == [(0, set())]
    assert [event.sid or event.username for event in events] == ["one", "alice", "two"]
    assert len(snapshot) == 3
    assert snapshot.is_fresh


async def test_read_returns_each_event_once_when_nothing_is_late(database: Database, clock: ManualClock) -> None:
    """Each look begins where the one before ended."""
    store = AttentiveStore(database)
    feed, _ = _follow(store, clock)
    await feed.read()

    read = []
    for sid in ("one", "two", "three"):
        await store.record([_ended(sid)])
        read += [*await feed.read(), *await feed.read()]

    assert [event.sid for event in read] == ["one", "two", "three"]


@pytest.mark.parametrize("is_started", [pytest.param(True, id="running"), pytest.param(False, id="starting")])
async def test_read_takes_in_a_lower_number_when_it_comes_late(
    connect: Callable[[], AttentiveStore], clock: ManualClock, is_started: bool
) -> None:
    """In PostgreSQL a transaction that began first can be committed last; its event is not missed."""
    slow, quick = connect(), connect()
    feed, snapshot = _follow(connect(), clock)
    if is_started:
        await feed.read()

    async with slow.transaction():
        (low,) = await slow.record([_ended("low")])
        (high,) = await quick.record([_ended("high")])
        first = await feed.read()
    second = await feed.read()

    assert low.seq < high.seq
    assert [list(first), list(second)] == [[high], [low]]
    assert len(snapshot) == 2


@pytest.mark.parametrize("is_started", [pytest.param(True, id="running"), pytest.param(False, id="starting")])
async def test_read_takes_in_a_late_number_when_thousands_came_before(
    connect: Callable[[], AttentiveStore], clock: ManualClock, is_started: bool
) -> None:
    """A late event is not missed either if everybody's session was ended meanwhile."""
    slow, quick = connect(), connect()
    feed, _ = _follow(connect(), clock)
    if is_started:
        await feed.read()

    async with slow.transaction():
        (low,) = await slow.record([_ended("low")])
        await quick.record([_ended(f"sid{number}") for number in range(2 * Feed.MAX_GAPS)])
        first = await feed.read()
    second = await feed.read()

    assert len(first) == 2 * Feed.MAX_GAPS
    assert list(second) == [low]


async def test_read_forgets_a_number_when_it_was_rolled_back(
    connect: Callable[[], AttentiveStore], clock: ManualClock
) -> None:
    """A number that nobody will ever use is asked for as long as a transaction can last, and no longer."""
    writer, reader = connect(), connect()
    feed, _ = _follow(reader, clock)
    await feed.read()
    with pytest.raises(ZeroDivisionError):
        await _record_and_fail(writer)
    (event,) = await writer.record([_ended("one")])
    await feed.read()

    await feed.read()
    clock.advance(Feed.OVERLAP_SECONDS - 1)
    await feed.read()
    clock.advance(1)
    await feed.read()
    await feed.read()

    lost = event.seq - 1
    assert reader.asked[2:] == [(lost, {lost}), (lost, {lost}), (lost, {lost}), (lost, set())]


async def test_read_goes_on_from_the_same_place_when_the_database_was_away(clock: ManualClock) -> None:
    """What happened while the database did not answer is read when it does, and until then nothing counts as read."""
    store = UnreliableStore()
    feed, snapshot = _follow(store, clock)
    await feed.read()
    await store.record([_ended("one")])

    store.is_down = True
    clock.advance(10)
    with pytest.raises(StorageError):
        await feed.read()
    age = snapshot.age
    store.is_down = False
    events = await feed.read()

    assert age == 10
    assert [event.sid for event in events] == ["one"]
    assert snapshot.age == 0


async def test_version_goes_on_when_a_user_is_removed_and_added_again(services: Services) -> None:
    """No token of the one before is taken for one of the new user."""
    await services.accounts.add("alice", PASSWORD)
    changed = await services.accounts.change("alice", UserChanges(client_data={"colour": "green"}))
    await services.accounts.remove("alice")

    added = await services.accounts.add("alice", PASSWORD)

    assert added.version > changed.version


async def _read(*nodes: Services) -> None:
    for node in nodes:
        await node.feed.read()


def _follow(store: SQLSessionStore | MemorySessionStore, clock: ManualClock) -> tuple[Feed, SessionSnapshot]:
    snapshot = SessionSnapshot(clock=clock, stale_for=300)
    return Feed(store, snapshot=snapshot, clock=clock), snapshot


async def _record_and_fail(store: SQLSessionStore) -> None:
    async with store.transaction():
        await store.record([_ended("never")])
        raise ZeroDivisionError


def _ended(sid: str, **fields: Any) -> SessionEvent:
    values = {"username": "alice", "created_at": 1_800_000_000, "expires_at": 1_800_001_000, **fields}
    return SessionEvent(kind="session.ended", sid=sid, **values)


def _changed(username: str, version: int) -> SessionEvent:
    return SessionEvent(
        kind="user.changed", username=username, version=version, created_at=1_800_000_000, expires_at=1_800_001_000
    )
