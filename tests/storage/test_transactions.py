"""Users, sessions and events change together or not at all, whoever else is at work."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text

from tornado_ds import cli
from tornado_ds.errors import AuthenticationError, UserExistsError
from tornado_ds.services import Services
from tornado_ds.sessions import OpenSession
from tornado_ds.settings import Settings
from tornado_ds.storage.database import Database
from tornado_ds.storage.sql import SQLAlchemyUserStore, SQLSessionStore
from tornado_ds.users import User, UserChanges

PASSWORD = "correct horse battery staple"
NEW_PASSWORD = "a purple elephant in the rain"

ROUNDS = 12

Attack = Callable[[Services, str], Awaitable[object]]


@pytest.mark.gen_test(timeout=30)
async def test_transaction_leaves_nothing_when_it_fails(services: Services) -> None:
    """A change of a user, the end of its sessions and the news of both are undone together."""
    token = await _token_of_alice(services)

    with pytest.raises(ZeroDivisionError):
        await _fail_in_transaction(services)

    user = await services.users.get("alice")
    assert user is not None
    assert (user.is_disabled, user.version) == (False, 1)
    assert len(await services.sessions.list("alice")) == 1
    assert list(await services.feed.read()) == []
    assert services.checker.check(token).denial is None


@pytest.mark.gen_test(timeout=30)
async def test_transaction_is_seen_by_others_when_it_is_over(services: Services, other_services: Services) -> None:
    """Nobody else sees a part of a transaction."""
    await _token_of_alice(services)

    async with services.sessions.transaction():
        await services.accounts.change("alice", UserChanges(disabled=True))
        during = await other_services.sessions.list("alice")
    after = await other_services.sessions.list("alice")

    assert (len(during), len(after)) == (1, 0)


@pytest.mark.gen_test(timeout=30)
async def test_transactions_stay_apart_when_they_run_at_once(database: Database) -> None:
    """A transaction that fails takes nothing of another task's with it."""
    users, sessions = SQLAlchemyUserStore(database), SQLSessionStore(database)

    async def add(name: str, *, fails: bool) -> None:
        async with sessions.transaction():
            await users.add([User(name, "hash")])
            await asyncio.sleep(0)
            if fails:
                raise ZeroDivisionError

    await asyncio.gather(*(add(f"user{number}", fails=number % 2 == 1) for number in range(8)), return_exceptions=True)

    assert [user.username for user in await users.list()] == ["user0", "user2", "user4", "user6"]


@pytest.mark.gen_test(timeout=30)
async def test_add_leaves_nothing_when_the_last_of_thousands_is_taken(database: Database) -> None:
    """All or nothing also holds for more users than fit into one statement."""
    users = SQLAlchemyUserStore(database)
    await users.add([User("Taken", "before")])

    with pytest.raises(UserExistsError):
        await users.add([*(User(f"user{number}", "hash") for number in range(2500)), User("TAKEN", "after")])

    assert [user.password_hash for user in await users.list()] == ["before"]


@pytest.mark.gen_test(timeout=30)
async def test_add_leaves_nothing_when_equivalent_names_are_far_apart(database: Database) -> None:
    """Two spellings of a name are found although they come in different statements."""
    users = SQLAlchemyUserStore(database)

    with pytest.raises(UserExistsError):
        await users.add(
            [User("Alice", "one"), *(User(f"user{number}", "hash") for number in range(2500)), User("alice", "two")]
        )

    assert list(await users.list()) == []


@pytest.mark.gen_test(timeout=30)
async def test_get_many_finds_thousands(database: Database) -> None:
    """More names can be asked for than one statement can carry values."""
    users = SQLAlchemyUserStore(database)
    names = [f"user{number}" for number in range(2500)]
    await users.add([User(name, "hash") for name in names])

    found = await users.get_many([name.upper() for name in names] * 20)

    assert sorted(user.username for user in found.values()) == sorted(names)


@pytest.mark.untraced
@pytest.mark.gen_test(timeout=120)
@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(lambda services, name: services.accounts.change(name, UserChanges(disabled=True)), id="disabled"),
        pytest.param(lambda services, name: services.accounts.set_password(name, NEW_PASSWORD), id="new-password"),
        pytest.param(lambda services, name: services.accounts.remove(name), id="removed"),
    ],
)
async def test_log_in_leaves_no_live_session_when_the_account_changes_meanwhile(
    services: Services, other_services: Services, attack: Attack
) -> None:
    """Whoever comes first: a session that the change should have ended is never left behind."""
    for number in range(ROUNDS):
        name = f"alice{number}"
        await services.accounts.add(name, PASSWORD)

        outcomes = await asyncio.gather(
            # Logins that begin one after another meet the change at every step of theirs.
            *(_after(4 * start, services.accounts.log_in, name, PASSWORD) for start in range(4)),
            _after(number, attack, other_services, name),
            return_exceptions=True,
        )

        assert list(await services.sessions.list(name)) == []
        assert {type(outcome) for outcome in outcomes} <= {OpenSession, AuthenticationError, User}


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_log_in_waits_when_a_change_of_the_account_is_under_way(
    services: Services, other_services: Services, database: Database
) -> None:
    """A login that read the account just before it was disabled learns of that before it opens a session."""
    await services.accounts.add("alice", PASSWORD)

    async with other_services.sessions.transaction():
        await other_services.accounts.change("alice", UserChanges(disabled=True))
        login = asyncio.create_task(services.accounts.log_in("alice", PASSWORD))
        while not (login.done() or await _is_anybody_waiting(database)):
            pass
    (outcome,) = await asyncio.gather(login, return_exceptions=True)

    assert isinstance(outcome, AuthenticationError)
    assert list(await services.sessions.list("alice")) == []


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_sessions_open_waits_when_a_change_of_the_account_is_under_way(
    services: Services, database: Database, database_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that runs beside the end of an account prints no token that outlives it."""
    monkeypatch.setenv("TORNADO_DS_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("TORNADO_DS_DATABASE_URL", database_url)
    await services.accounts.add("alice", PASSWORD)

    async with services.sessions.transaction():
        await services.accounts.change("alice", UserChanges(disabled=True))
        command = asyncio.create_task(asyncio.to_thread(cli.run, ["sessions", "open", "alice", "--lifetime", "90d"]))
        while not (command.done() or await _is_anybody_waiting(database)):
            pass
    code = await command

    assert code == 1
    assert list(await services.sessions.list("alice")) == []


async def _is_anybody_waiting(database: Database) -> bool:
    async with database.read() as connection:
        return bool(await connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))


async def _after(steps: int, action: Callable[..., Awaitable[object]], *arguments: object) -> object:
    """Do *action* once the event loop has gone round *steps* times."""
    for _ in range(steps):
        await asyncio.sleep(0)
    return await action(*arguments)


async def _fail_in_transaction(services: Services) -> None:
    async with services.sessions.transaction():
        await services.accounts.change("alice", UserChanges(disabled=True))
        raise ZeroDivisionError


async def _token_of_alice(services: Services) -> str:
    """Return a token of alice, who is new."""
    await services.accounts.add("alice", PASSWORD)
    await services.feed.read()
    return (await services.accounts.log_in("alice", PASSWORD)).token
