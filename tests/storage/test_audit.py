"""The contract of audit stores on memory, SQLite and PostgreSQL, and entries that stand or fall with the change."""

from collections.abc import Iterator

import pytest
from tornado.ioloop import IOLoop

from tests.fakes import ManualClock
from tornado_ds.audit import Actor, AuditEntry, AuditStore, Event, acting_as
from tornado_ds.errors import AuthenticationError, StorageError, UserExistsError
from tornado_ds.services import Services
from tornado_ds.storage.audit import SQLAuditStore
from tornado_ds.storage.database import COMMAND_SECONDS, Database, parse_url
from tornado_ds.storage.memory import MemoryAuditStore
from tornado_ds.users import UserChanges

PASSWORD = "correct horse battery staple"

pytestmark = pytest.mark.gen_test(timeout=30)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, io_loop: IOLoop) -> Iterator[AuditStore]:
    """A store of each kind, with nothing in it."""
    if request.param == "memory":
        yield MemoryAuditStore()
        return
    database = Database(parse_url(request.getfixturevalue(f"{request.param}_url")), seconds=COMMAND_SECONDS)
    yield SQLAuditStore(database)
    io_loop.run_sync(database.close)


def entry(detail: str, event: Event = "user.changed", *, username: str | None = None, at: int = 1000) -> AuditEntry:
    """Something that happened to somebody, or to nobody."""
    return AuditEntry(event=event, username=username, detail=detail, actor="system", created_at=at)


async def details(store: AuditStore) -> list[str]:
    """Return what is stored, newest first."""
    return [entry.detail for entry in await store.list(limit=100)]


async def test_list_returns_what_was_added_newest_first(store: AuditStore) -> None:
    """Every field comes back as it was."""
    full = AuditEntry(
        event="login.throttled",
        username="Straße",
        sid="5" * 32,
        detail="by account",
        actor="anonymous",
        address="2001:db8::1",
        user_agent="Mozilla/5.0",
        created_at=2**40,
        count=2**40,
    )
    await store.add([entry("first"), entry("second")])
    await store.add([full])

    assert await store.list(limit=100) == [full, entry("second"), entry("first")]


async def test_list_goes_by_the_time_when_entries_come_late(store: AuditStore) -> None:
    """Failed logins are noted together, after what has happened meanwhile."""
    await store.add([entry("change", at=1001)])
    await store.add([entry("failures", "login.failed", at=1000), entry("more", "login.failed", at=1001)])

    assert await details(store) == ["more", "change", "failures"]
    assert [each.detail for each in await store.list(limit=1)] == ["more"]


async def test_add_takes_no_entries(store: AuditStore) -> None:
    """Nothing happened, and that is no error."""
    await store.add([])

    assert await store.list(limit=100) == []


async def test_list_returns_only_what_is_asked_for(store: AuditStore) -> None:
    """By user, moment and events, and no more than so many."""
    await store.add(
        [
            entry("old", "session.ended", username="alice", at=999),
            entry("bob's", "session.ended", username="bob"),
            entry("nobody's", "login.failed"),
            entry("change", username="alice"),
            *(entry(f"end {number}", "session.ended", username="alice", at=1000 + number) for number in range(3)),
        ]
    )

    listed = await store.list(username="alice", since=1000, events=["session.ended", "login.failed"], limit=2)

    assert [entry.detail for entry in listed] == ["end 2", "end 1"]


async def test_prune_forgets_old_entries_in_small_steps(store: AuditStore) -> None:
    """The oldest go first, and what is not too old stays."""
    await store.add([*(entry(f"old {at}", at=at) for at in range(5)), entry("new", at=5)])

    steps = [await store.prune(before=5, events=["login.failed"], keep=0, limit=2)]
    left = await details(store)
    steps += [await store.prune(before=5, events=["login.failed"], keep=0, limit=2) for _ in range(3)]

    assert left == ["new", "old 4", "old 3", "old 2"]
    assert steps == [2, 2, 1, 0]
    assert await details(store) == ["new"]


async def test_prune_forgets_the_oldest_failures_when_there_are_too_many(store: AuditStore) -> None:
    """A flood of failed logins pushes out itself, and nothing that anybody did."""
    failures = [entry(str(number), "login.failed" if number % 2 else "login.throttled") for number in range(6)]
    await store.add([entry("change"), *failures, entry("another")])

    steps = [await store.prune(before=0, events=["login.failed", "login.throttled"], keep=2, limit=3) for _ in range(3)]

    assert steps == [3, 1, 0]
    assert await details(store) == ["another", "5", "4", "change"]


async def test_change_and_its_entry_are_undone_together(services: Services) -> None:
    """A transaction that fails leaves no entry of what it took back."""
    await services.accounts.add("alice", PASSWORD)
    await services.accounts.log_in("alice", PASSWORD)
    before = await services.audit.list(limit=100)

    with pytest.raises(ZeroDivisionError):
        await _disable_and_fail(services)

    assert await services.audit.list(limit=100) == before


async def test_change_is_refused_when_it_cannot_be_audited(services: Services, database: Database) -> None:
    """Nobody gets a role, a session or another password behind the back of the audit trail."""
    await services.accounts.add("alice", PASSWORD)
    alice = await services.users.get("alice")
    assert alice is not None
    await _rename(database, "audit", "away")

    for change in (
        services.accounts.change("alice", UserChanges(server_data={"roles": ["admin"]})),
        services.accounts.set_password("alice", "a purple elephant in the rain"),
        services.accounts.add("bob", PASSWORD),
        services.accounts.remove("alice"),
        services.accounts.log_in("alice", PASSWORD),
        services.sessions.open(alice),
    ):
        with pytest.raises(StorageError):
            await change

    await _rename(database, "away", "audit")
    assert await services.users.list() == [alice]
    assert await services.sessions.list() == []


async def test_failed_login_stays_one_when_it_cannot_be_audited(services: Services, database: Database) -> None:
    """The answer is the same, and what was noted is written once that is possible again."""
    await services.accounts.add("alice", PASSWORD)
    await _rename(database, "audit", "away")

    with pytest.raises(AuthenticationError):
        await services.accounts.log_in("alice", "wrong")
    with pytest.raises(StorageError):
        await services.audit.flush()

    await _rename(database, "away", "audit")
    await services.audit.flush()
    failed, _ = await services.audit.list(limit=100)
    assert (failed.event, failed.username, failed.detail) == ("login.failed", "alice", "wrong password")


async def test_add_leaves_no_entry_when_the_name_is_taken(services: Services) -> None:
    """What was refused did not happen."""
    await services.accounts.add("alice", PASSWORD)

    with pytest.raises(UserExistsError):
        await services.accounts.add("ALICE", PASSWORD)

    assert [entry.event for entry in await services.audit.list(limit=100)] == ["user.added"]


async def test_sessions_are_ended_by_the_system_when_their_user_is_disabled(
    services: Services, other_services: Services
) -> None:
    """Consequences are told from what somebody asked for, in the order in which they happened."""
    await services.accounts.add("alice", PASSWORD)
    opened = await services.accounts.log_in("alice", PASSWORD, address="192.0.2.1")

    with acting_as(Actor(name="operator:root")):
        await other_services.accounts.change("alice", UserChanges(disabled=True))

    ended, disabled, *_ = await services.audit.list(limit=100)
    assert (disabled.event, disabled.actor) == ("user.disabled", "operator:root")
    assert (ended.event, ended.actor, ended.detail, ended.sid) == (
        "session.ended",
        "system",
        "disabled",
        opened.session.sid,
    )


async def test_audit_is_pruned_when_it_is_old(services: Services, clock: ManualClock) -> None:
    """Housekeeping keeps it for as long as `audit.keep` says."""
    await services.accounts.add("alice", PASSWORD)
    clock.advance(services.settings.audit.keep)
    await services.accounts.add("bob", PASSWORD)
    await services.housekeeping.prune()
    before = await services.audit.list(limit=100)

    clock.advance(1)
    await services.housekeeping.prune()

    assert [entry.username for entry in before] == ["bob", "alice"]
    assert [entry.username for entry in await services.audit.list(limit=100)] == ["bob"]


async def test_noted_failures_are_written_when_the_services_close(
    services: Services, other_services: Services, clock: ManualClock
) -> None:
    """A server that stops leaves nothing unwritten."""
    with pytest.raises(AuthenticationError):
        await services.accounts.log_in("nobody", PASSWORD, address="192.0.2.1", user_agent="curl/8")

    await services.audit.close()

    assert await other_services.audit.list(limit=100) == [
        AuditEntry(
            event="login.failed",
            detail="unknown name",
            actor="anonymous",
            address="192.0.2.1",
            user_agent="curl/8",
            created_at=int(clock.now()),
        )
    ]


async def test_close_gives_up_when_the_database_is_away(services: Services, database: Database) -> None:
    """A server can stop without it."""
    with pytest.raises(AuthenticationError):
        await services.accounts.log_in("nobody", PASSWORD)
    await _rename(database, "audit", "away")

    await services.audit.close()

    await _rename(database, "away", "audit")
    assert await services.audit.list(limit=100) == []


async def _disable_and_fail(services: Services) -> None:
    async with services.sessions.transaction():
        await services.accounts.change("alice", UserChanges(disabled=True))
        raise ZeroDivisionError


async def _rename(database: Database, table: str, name: str) -> None:
    """Take a table away, or bring it back."""
    async with database.transaction() as connection:
        await connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {name}")
