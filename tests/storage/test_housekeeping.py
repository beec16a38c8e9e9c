"""Housekeeping: what nobody needs any more goes, in small steps, whichever server gets to it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.fakes import ManualClock
from tornado_ds.audit import Audit
from tornado_ds.errors import StorageError
from tornado_ds.feed import Feed
from tornado_ds.housekeeping import Housekeeping
from tornado_ds.keys import KeyRing
from tornado_ds.metrics import Metrics
from tornado_ds.services import Services
from tornado_ds.sessions import OpenSession
from tornado_ds.snapshot import SessionEvent, SessionSnapshot
from tornado_ds.storage.database import Database
from tornado_ds.storage.memory import MemoryAuditStore, MemorySessionStore, MemoryThrottleStore
from tornado_ds.storage.sql import SQLSessionStore
from tornado_ds.throttle import Throttle

PASSWORD = "correct horse battery staple"
NOW = 1_800_000_000
HOUR = 3600
KEEP_ENDED = 90 * 86400

# Pruning needs none.
NO_KEYS = KeyRing(())

pytestmark = pytest.mark.gen_test(timeout=30)


class CountingStore(SQLSessionStore):
    """A store that remembers how much went in each step."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.steps: list[int] = []

    async def prune(self, **which: Any) -> int:
        self.steps.append(await super().prune(**which))
        return self.steps[-1]


class UnreliableStore(MemorySessionStore):
    """A store that fails the first time, and says when it was asked again."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error
        self.asked = 0
        self.was_asked_again = asyncio.Event()

    async def prune(self, **which: Any) -> int:
        self.asked += 1
        if self.asked == 1:
            raise self._error
        self.was_asked_again.set()
        return 0


class HastyHousekeeping(Housekeeping):
    """Housekeeping without a pause."""

    INTERVAL_SECONDS = 0


async def test_prune_forgets_events_once_their_tokens_ran_out(database: Database, clock: ManualClock) -> None:
    """An event matters for as long as a token that it is about could be shown, and is forgotten then."""
    store = SQLSessionStore(database)
    await store.record([ended("over", NOW), ended("live", NOW + 1), ended("newest", NOW)])
    clock.advance(1)

    pruned = await housekeeping(store, clock).prune()

    assert pruned == 1
    assert sids(await store.events(after=0)) == ["live", "newest"]


async def test_prune_leaves_the_newest_event_so_that_numbers_go_on(database: Database, clock: ManualClock) -> None:
    """However old it is, the newest event stays: a number never comes twice, and no follower is reset for nothing."""
    store = SQLSessionStore(database)
    recorded = await store.record([ended(f"s{number}", NOW) for number in range(5)])
    clock.advance(HOUR)

    await housekeeping(store, clock).prune()
    kept = await store.kept_events()
    (following,) = await store.record([ended("next", NOW + 2 * HOUR)])

    assert kept == (recorded[-1].seq, recorded[-1].seq)
    assert following.seq == recorded[-1].seq + 1


async def test_prune_goes_in_small_steps(database: Database, clock: ManualClock) -> None:
    """No transaction is so large that a login would have to wait for it."""
    store = CountingStore(database)
    await store.record([ended(f"s{number}", NOW) for number in range(1201)])
    clock.advance(HOUR)

    pruned = await housekeeping(store, clock).prune()

    assert pruned == 1200
    assert store.steps == [500, 500, 200, 0]


async def test_prune_forgets_sessions_that_are_long_over(services: Services, clock: ManualClock) -> None:
    """Whether it was ended or ran out, a session stays listed for as long as `session.keep_ended` says."""
    await services.accounts.add("alice", PASSWORD)
    ended_session, _ = [await log_in(services) for _ in range(2)]
    await services.sessions.end(ended_session.session.sid, reason="logout")

    clock.advance(services.settings.session.idle_timeout + KEEP_ENDED)
    await services.housekeeping.prune()
    listed = await services.sessions.list("alice", include_ended=True)
    clock.advance(1)
    after = await services.housekeeping.prune()

    assert (len(listed), after) == (2, 2)
    assert await services.sessions.list("alice", include_ended=True) == []


async def test_prune_leaves_a_session_that_is_still_used(services: Services, clock: ManualClock) -> None:
    """A session that is renewed is never too old, and a token that lasts long keeps its session."""
    alice = await services.accounts.add("alice", PASSWORD)
    device = await services.sessions.open(alice, lifetime=10 * KEEP_ENDED)

    clock.advance(2 * KEEP_ENDED)
    await services.housekeeping.prune()

    assert [session.sid for session in await services.sessions.list("alice")] == [device.session.sid]


async def test_end_of_a_long_token_is_kept_while_others_go(services: Services, clock: ManualClock) -> None:
    """Months after a device's token was revoked, a server that starts still knows of it."""
    alice = await services.accounts.add("alice", PASSWORD)
    device = await services.sessions.open(alice, lifetime=KEEP_ENDED)
    await services.sessions.end(device.session.sid, reason="ended_by_operator")
    other = await log_in(services)
    await services.sessions.end(other.session.sid, reason="logout")

    clock.advance(KEEP_ENDED - 1)
    await services.housekeeping.prune()
    await services.feed.read()

    assert services.checker.check(device.token).denial == "session_ended"


async def test_two_servers_prune_at_once(
    services: Services, other_services: Services, clock: ManualClock, database: Database
) -> None:
    """Whichever server gets to a row forgets it, and neither fails for the other's sake."""
    store = SQLSessionStore(database)
    await store.record([ended(f"s{number}", NOW) for number in range(3001)])
    clock.advance(HOUR)

    await asyncio.gather(services.housekeeping.prune(), other_services.housekeeping.prune())

    assert sids(await store.events(after=0)) == ["s3000"]


async def test_sessions_end_while_a_server_prunes(
    services: Services, other_services: Services, clock: ManualClock, database: Database
) -> None:
    """Nobody's log-out is refused, or lost, because old rows are going."""
    await services.accounts.add("alice", PASSWORD)
    opened = [await log_in(services) for _ in range(20)]
    await SQLSessionStore(database).record([ended(f"s{number}", NOW) for number in range(3000)])
    clock.advance(1)

    async def end_all() -> list[bool]:
        return [await other_services.sessions.end(each.session.sid, reason="logout") for each in opened]

    pruned, ends = await asyncio.gather(services.housekeeping.prune(), end_all())
    await services.feed.read()

    # The newest event stays, and which one that is depends on who comes first.
    assert pruned in (2999, 3000)
    assert ends == [True] * 20
    assert {services.checker.check(each.token).denial for each in opened} == {"session_ended"}


async def test_feed_goes_on_over_a_prune(database: Database, clock: ManualClock) -> None:
    """What a server has read may vanish behind it; it neither reads anything twice nor misses what comes."""
    store = SQLSessionStore(database)
    feed = Feed(store, snapshot=SessionSnapshot(clock=clock, stale_for=300), clock=clock)
    await feed.read()
    await store.record([ended("one", NOW), ended("two", NOW)])
    first = await feed.read()
    clock.advance(HOUR)

    await housekeeping(store, clock).prune()
    await store.record([ended("three", NOW + 2 * HOUR)])
    second = await feed.read()

    assert [sids(first), sids(second)] == [["one", "two"], ["three"]]


async def test_feed_goes_on_when_what_it_read_last_is_pruned(database: Database, clock: ManualClock) -> None:
    """An old event goes as soon as there is a newer one, maybe before a server has read that: no follower is reset."""
    store = SQLSessionStore(database)
    feed = Feed(store, snapshot=SessionSnapshot(clock=clock, stale_for=300), clock=clock)
    await feed.read()
    await store.record([ended("one", NOW)])
    await feed.read()
    clock.advance(HOUR)
    await store.record([ended("two", NOW + 2 * HOUR)])
    await housekeeping(store, clock).prune()

    with capture_logs() as logs:
        events = await feed.read()

    assert sids(events) == ["two"]
    assert logs == []


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(StorageError("the database does not answer"), id="outage"),
        pytest.param(KeyError("nobody thought of it"), id="slip-of-ours"),
    ],
)
async def test_run_goes_on_when_the_database_was_away(clock: ManualClock, error: Exception) -> None:
    """An outage is worth a line in the log, and the next turn comes; so after an error that nobody thought of."""
    store = UnreliableStore(error)
    keeping = HastyHousekeeping(store, **others(clock))

    with capture_logs() as logs:
        task = asyncio.create_task(keeping.run())
        await store.was_asked_again.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert [entry["event"] for entry in logs] == ["housekeeping failed"]


def housekeeping(store: SQLSessionStore, clock: ManualClock) -> Housekeeping:
    """Return the housekeeping of *store*, with nothing else to keep."""
    return Housekeeping(store, **others(clock))


def others(clock: ManualClock) -> dict[str, Any]:
    """Return what housekeeping needs besides a store of sessions, with nothing in it."""
    return {
        "throttle": Throttle(MemoryThrottleStore(), keys=lambda: NO_KEYS, clock=clock),
        "audit": Audit(MemoryAuditStore(), clock=clock, keep=KEEP_ENDED),
        "clock": clock,
        "keep_ended": KEEP_ENDED,
        "metrics": Metrics(),
    }


async def log_in(services: Services) -> OpenSession:
    """Return a new session of alice."""
    return await services.accounts.log_in("alice", PASSWORD)


def ended(sid: str, expires_at: int) -> SessionEvent:
    """Return the end of a session whose last token runs out at *expires_at*."""
    return SessionEvent(kind="session.ended", username="alice", sid=sid, created_at=NOW, expires_at=expires_at)


def sids(events: Sequence[SessionEvent]) -> list[str | None]:
    """Return whose ends they are."""
    return [event.sid for event in events]
