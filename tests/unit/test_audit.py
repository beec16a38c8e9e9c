"""What becomes of an entry on its way to the store and to the log."""

import asyncio
import logging
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from tests.fakes import ManualClock
from tornado_ds.audit import EVENTS, Actor, Audit, AuditEntry, Event, act_as, acting_as
from tornado_ds.errors import StorageError
from tornado_ds.storage.memory import MemoryAuditStore

# What a terminal obeys, takes for another line, or shows in another order.
HOSTILE = "a\r\n\x1b[2Jb\x07\u202ec\u2028d\ud800e\x9b" + "x" * 10_000
HARMLESS = "a\\r\\n\\x1b[2Jb\\x07\\u202ec\\u2028d\\ud800e\\x9b"

FAILED = AuditEntry(event="login.failed", username="alice", detail="wrong password")
THROTTLED = AuditEntry(event="login.throttled", username="alice", detail="by account")

pytestmark = pytest.mark.gen_test


class FlakyAuditStore(MemoryAuditStore):
    """A store that can be away, and says when it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.was_asked = asyncio.Event()

    async def add(self, entries: Sequence[AuditEntry]) -> None:
        self.was_asked.set()
        if self.is_away:
            raise StorageError("the database does not answer")
        await super().add(entries)


class SmallAudit(Audit):
    """An audit trail that is full soon, and hastens."""

    MAX_FAILURES = 3
    MAX_WAITING = 2
    FLUSH_SECONDS = 0
    RETRY_SECONDS = 0


@pytest.fixture(autouse=True)
def _all_lines_are_wanted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="audit")


@pytest.fixture
def store() -> FlakyAuditStore:
    """A store that works, so far."""
    return FlakyAuditStore()


@pytest.fixture
def audit(store: FlakyAuditStore, clock: ManualClock) -> Audit:
    """An audit trail with nothing in it."""
    return Audit(store, clock=clock, keep=3600)


@pytest.fixture
def small_audit(store: FlakyAuditStore, clock: ManualClock) -> Audit:
    """An audit trail that keeps little."""
    return SmallAudit(store, clock=clock, keep=3600)


async def test_record_adds_the_moment_and_who_acts_from_where(audit: Audit, clock: ManualClock) -> None:
    """Whoever changes something says only what."""
    actor = Actor(name="user:alice", sid="s1", address="192.0.2.1", user_agent="curl/8")

    with acting_as(actor):
        await audit.record(AuditEntry(event="password.changed", username="alice"))
    await audit.record(AuditEntry(event="user.removed", username="bob"))

    assert await audit.list(limit=10) == [
        AuditEntry(event="user.removed", username="bob", actor="system", created_at=int(clock.now())),
        AuditEntry(
            event="password.changed",
            username="alice",
            sid="s1",
            actor="user:alice",
            address="192.0.2.1",
            user_agent="curl/8",
            created_at=int(clock.now()),
        ),
    ]


async def test_act_as_holds_for_one_task(audit: Audit) -> None:
    """Two requests at the same time are told apart."""

    async def change(name: str) -> None:
        act_as(Actor(name=name))
        await asyncio.sleep(0)
        await audit.record(AuditEntry(event="user.changed", detail=name))

    await asyncio.gather(*(change(name) for name in ("user:alice", "user:bob")))

    assert [(entry.detail, entry.actor) for entry in await audit.list(limit=10)] == [
        ("user:bob", "user:bob"),
        ("user:alice", "user:alice"),
    ]


@pytest.mark.parametrize(
    ("field", "entry", "actor"),
    [
        pytest.param("username", AuditEntry(event="user.added", username=HOSTILE), Actor(name="a"), id="username"),
        pytest.param("detail", AuditEntry(event="user.added", detail=HOSTILE), Actor(name="a"), id="detail"),
        pytest.param("actor", AuditEntry(event="user.added"), Actor(name=HOSTILE), id="actor"),
        pytest.param("address", AuditEntry(event="user.added"), Actor(name="a", address=HOSTILE), id="address"),
        pytest.param("user_agent", AuditEntry(event="user.added"), Actor(name="a", user_agent=HOSTILE), id="browser"),
    ],
)
async def test_entry_is_harmless_whatever_strangers_put_into_it(
    audit: Audit, field: str, entry: AuditEntry, actor: Actor
) -> None:
    """In the database as in the log: visible characters, and not too many."""
    with capture_logs() as lines, acting_as(actor):
        await audit.record(entry)

    (stored,) = await audit.list(limit=1)
    text = getattr(stored, field)
    assert text.startswith(HARMLESS)
    assert text.isprintable()
    assert len(text) <= 256
    assert [text] == [line[field] for line in lines]


async def test_list_finds_a_user_whose_name_was_escaped(audit: Audit) -> None:
    """A name with an odd blank is stored as it is shown, and found as it is."""
    await audit.record(AuditEntry(event="user.added", username="a\u3000b"))

    listed = await audit.list(username="a\u3000b", limit=1)

    assert [entry.username for entry in listed] == ["a\\u3000b"]


async def test_record_logs_once_the_transaction_is_committed(audit: Audit) -> None:
    """A line about something that did not happen would be a lie."""
    with capture_logs() as lines:
        with pytest.raises(ZeroDivisionError):
            await _record_and_fail(audit)
        async with audit.transaction():
            await audit.record(AuditEntry(event="user.added", username="bob"))
            before = len(lines)

    assert before == 0
    assert lines == [{"event": "user.added", "log_level": "info", "username": "bob", "actor": "system"}]


async def test_record_logs_nothing_when_it_cannot_be_stored(audit: Audit, store: FlakyAuditStore) -> None:
    """Whoever made the change is told that it failed."""
    store.is_away = True

    with capture_logs() as lines, pytest.raises(StorageError):
        await audit.record(AuditEntry(event="user.added", username="bob"))

    assert lines == []


async def test_note_logs_every_failure_and_stores_those_alike_as_one(audit: Audit, clock: ManualClock) -> None:
    """The moment is that of the first, and the number that of all."""
    start = int(clock.now())

    with capture_logs() as lines, acting_as(Actor(name="anonymous", address="192.0.2.1")):
        for _ in range(3):
            audit.note(FAILED)
            clock.advance(1)
        audit.note(THROTTLED)
    await audit.flush()

    assert [(line["event"], line["log_level"]) for line in lines] == [
        *[("login.failed", "warning")] * 3,
        ("login.throttled", "warning"),
    ]
    throttled, failed = await audit.list(limit=10)
    assert (failed.count, failed.created_at, failed.address) == (3, start, "192.0.2.1")
    assert (throttled.count, throttled.event) == (1, "login.throttled")


async def test_note_keeps_browsers_apart_unless_they_are_throttled(audit: Audit) -> None:
    """What a browser calls itself costs nothing, so a flood cannot use it to become many rows."""
    for number in range(50):
        with acting_as(Actor(name="anonymous", user_agent=f"bot/{number % 2}")):
            audit.note(FAILED)
            audit.note(THROTTLED)
    await audit.flush()

    entries = await audit.list(limit=10)

    assert sorted((entry.event, entry.user_agent, entry.count) for entry in entries) == [
        ("login.failed", "bot/0", 25),
        ("login.failed", "bot/1", 25),
        ("login.throttled", "", 50),
    ]


async def test_note_keeps_only_the_number_when_too_many_differ(small_audit: Audit) -> None:
    """A flood from everywhere takes as little memory as one from somewhere."""
    for number in range(100):
        with acting_as(Actor(name="anonymous", address=f"192.0.2.{number}")):
            small_audit.note(FAILED)
    await small_audit.flush()

    entries = await small_audit.list(limit=100)

    assert [(entry.address, entry.count) for entry in entries] == [("", 98), ("192.0.2.1", 1), ("192.0.2.0", 1)]
    assert entries[0].detail == "more than could be told apart"


async def test_flush_loses_nothing_when_the_database_is_away(audit: Audit, store: FlakyAuditStore) -> None:
    """What could not be written is written the next time, together with what came meanwhile."""
    audit.note(FAILED)
    store.is_away = True
    with pytest.raises(StorageError):
        await audit.flush()
    audit.note(FAILED)
    store.is_away = False

    await audit.flush()
    await audit.flush()

    assert [entry.count for entry in await audit.list(limit=10)] == [2]


async def test_run_writes_failures_at_once_and_throttled_ones_after_a_minute(
    small_audit: Audit, store: FlakyAuditStore, clock: ManualClock
) -> None:
    """An attack on one account is one row a minute."""
    small_audit.note(THROTTLED)
    task = asyncio.create_task(small_audit.run())
    small_audit.note(FAILED)
    await store.was_asked.wait()
    first = await _events(small_audit)
    small_audit.note(THROTTLED)
    clock.advance(60)
    store.was_asked.clear()
    await store.was_asked.wait()

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert first == [("login.failed", 1)]
    assert await _events(small_audit) == [("login.throttled", 2), ("login.failed", 1)]


async def test_run_writes_throttled_failures_when_the_clock_was_set_back(
    small_audit: Audit, store: FlakyAuditStore, clock: ManualClock
) -> None:
    """A minute is not waited for until the clock has caught up."""
    small_audit.note(THROTTLED)
    clock.set(clock.now() - 365 * 86400)

    task = asyncio.create_task(small_audit.run())
    await store.was_asked.wait()

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await _events(small_audit) == [("login.throttled", 1)]


async def test_run_goes_on_when_the_database_was_away(small_audit: Audit, store: FlakyAuditStore) -> None:
    """It says how many wait, and tries again."""
    store.is_away = True
    small_audit.note(FAILED)

    with capture_logs() as lines:
        task = asyncio.create_task(small_audit.run())
        await store.was_asked.wait()
        store.is_away = False
        store.was_asked.clear()
        await store.was_asked.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert lines == [
        {
            "event": "failed logins wait to be written",
            "log_level": "warning",
            "reason": "the database does not answer",
            "exc_info": False,
        }
    ]
    assert await _events(small_audit) == [("login.failed", 1)]


async def test_prune_keeps_few_failures_and_all_changes(small_audit: Audit, store: FlakyAuditStore) -> None:
    """Both kinds of failures count together; nothing that anybody did makes room for them."""
    failures: list[Event] = ["login.failed", "login.throttled"] * 3
    await small_audit.record(*(AuditEntry(event=event) for event in EVENTS if event not in failures))
    await small_audit.record(*(AuditEntry(event=event) for event in failures))

    pruned = await small_audit.prune(limit=100)

    left = [entry.event for entry in await small_audit.list(limit=100)]
    assert pruned == 3
    assert left[:3] == ["login.throttled", "login.failed", "login.throttled"]
    assert set(left) == set(EVENTS)


async def _record_and_fail(audit: Audit) -> None:
    async with audit.transaction():
        await audit.record(AuditEntry(event="user.added", username="alice"))
        raise ZeroDivisionError


async def _events(audit: Audit) -> list[tuple[Event, int]]:
    return [(entry.event, entry.count) for entry in await audit.list(limit=10)]
