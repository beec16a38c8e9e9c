from collections.abc import Collection
from dataclasses import replace

import pytest

from tests.fakes import ManualClock
from tests.unit.test_snapshot import changed, ended
from tornado_ds.checker import Check, SessionChecker
from tornado_ds.snapshot import SessionEvent, SessionSnapshot
from tornado_ds.storage.memory import MemoryUserStore
from tornado_ds.tokens import Claims, TokenService
from tornado_ds.users import User, UserChanges


@pytest.fixture
def users() -> MemoryUserStore:
    """A store without users."""
    return MemoryUserStore()


@pytest.fixture
def snapshot(clock: ManualClock) -> SessionSnapshot:
    """A fresh snapshot that knows of nothing."""
    snapshot = SessionSnapshot(clock=clock, stale_for=300)
    snapshot.mark_read()
    return snapshot


@pytest.fixture
def checker(tokens: TokenService, snapshot: SessionSnapshot, users: MemoryUserStore) -> SessionChecker:
    """The checker of all these."""
    return SessionChecker(tokens=tokens, snapshot=snapshot, users=users)


@pytest.mark.parametrize(
    ("expected", "event"),
    [
        pytest.param("session_ended", ended("Zm9v-sid_1"), id="ended"),
        pytest.param("session_ended", ended("Zm9v-sid_1", reason="removed"), id="removed"),
        pytest.param("account_disabled", ended("Zm9v-sid_1", reason="disabled"), id="disabled"),
        pytest.param(None, ended("another"), id="another-ended"),
        pytest.param(None, changed(3), id="change-it-knows"),
    ],
)
def test_check_names_why_a_good_token_does_not_count(
    checker: SessionChecker,
    tokens: TokenService,
    snapshot: SessionSnapshot,
    claims: Claims,
    expected: str | None,
    event: SessionEvent,
) -> None:
    """Ended and disabled are told apart; what happened to others changes nothing."""
    snapshot.apply([event])

    check = checker.check(tokens.issue(claims))

    assert expected == check.denial
    assert (claims if expected is None else None) == check.claims


def test_check_tells_expired_from_invalid(
    checker: SessionChecker, tokens: TokenService, claims: Claims, clock: ManualClock
) -> None:
    """Somebody whose time is over is not called a forger."""
    token = tokens.issue(claims)
    clock.advance(3600)

    assert Check(denial="session_expired") == checker.check(token)
    assert Check(denial="session_invalid") == checker.check(token[:-1])
    assert Check(denial="session_invalid") == checker.check("")


def test_check_says_unavailable_when_the_feed_is_away_for_too_long(
    checker: SessionChecker, tokens: TokenService, claims: Claims, clock: ManualClock
) -> None:
    """Not knowing is our trouble, not the token's."""
    clock.advance(301)

    assert Check(denial="unavailable") == checker.check(tokens.issue(claims))


@pytest.mark.gen_test
async def test_refresh_returns_the_data_of_now_when_the_user_has_changed(
    checker: SessionChecker,
    tokens: TokenService,
    snapshot: SessionSnapshot,
    users: MemoryUserStore,
    claims: Claims,
) -> None:
    """A stale token still says who and until when; the rest comes from the store."""
    await users.add([User("alice", "x")])
    user = await users.update("alice", UserChanges(server_data={"roles": []}, client_data={"colour": "red"}))
    snapshot.apply([changed(4)])

    check = checker.check(tokens.issue(claims))
    assert check.is_stale
    assert check.claims is not None
    fresh = await checker.refresh(check.claims)

    expected = replace(claims, version=user.version, server_data={"roles": []}, client_data={"colour": "red"})
    assert Check(expected) == fresh


@pytest.mark.gen_test
async def test_refresh_refuses_when_the_user_is_gone_or_disabled(
    checker: SessionChecker, users: MemoryUserStore, claims: Claims
) -> None:
    """A stale token of nobody counts for nothing."""
    assert Check(denial="session_ended") == await checker.refresh(claims)

    await users.add([User("alice", "x", disabled_at=1)])

    assert Check(denial="account_disabled") == await checker.refresh(claims)


class Meanwhile(MemoryUserStore):
    """A store in which something happens while it is read."""

    def __init__(self, snapshot: SessionSnapshot, event: SessionEvent) -> None:
        super().__init__()
        self._snapshot = snapshot
        self._event = event

    async def get_many(self, usernames: Collection[str]) -> dict[str, User]:
        self._snapshot.apply([self._event])
        return await super().get_many(usernames)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("expected", "event"),
    [
        pytest.param("session_ended", ended("Zm9v-sid_1"), id="ended"),
        pytest.param("account_disabled", ended("Zm9v-sid_1", reason="disabled"), id="disabled"),
        pytest.param(None, ended("another"), id="another-ended"),
    ],
)
async def test_refresh_refuses_when_the_session_ends_meanwhile(
    tokens: TokenService, snapshot: SessionSnapshot, claims: Claims, expected: str | None, event: SessionEvent
) -> None:
    """An end that is known when the answer is given counts, though the user was read before it."""
    users = Meanwhile(snapshot, event)
    await users.add([User("alice", "x")])
    checker = SessionChecker(tokens=tokens, snapshot=snapshot, users=users)

    assert expected == (await checker.refresh(claims)).denial
