"""Clocks that are set, forwards and back, under a running server."""

from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from pydantic import SecretStr
from tornado.ioloop import IOLoop

from tests.fakes import ManualClock
from tests.web.browser import PASSWORD
from tornado_ds.app import open_services
from tornado_ds.services import Services
from tornado_ds.settings import Settings

STEPS = [
    pytest.param(2, id="two-seconds"),
    pytest.param(600, id="ten-minutes"),
    pytest.param(365 * 86400, id="a-year"),
]

pytestmark = pytest.mark.gen_test(timeout=30)


@pytest.fixture
def services(sqlite_url: str, settings: Settings, clock: ManualClock, io_loop: IOLoop) -> Iterator[Services]:
    """All services, whose clock the test sets; alice is a user."""
    settings = settings.model_copy(update={"database_url": SecretStr(sqlite_url)})
    stack = AsyncExitStack()
    services: Services = io_loop.run_sync(lambda: stack.enter_async_context(open_services(settings, clock=clock)))
    io_loop.run_sync(services.feed.read)
    io_loop.run_sync(lambda: services.accounts.add("alice", PASSWORD))
    yield services
    io_loop.run_sync(stack.aclose)


@pytest.mark.parametrize("seconds", STEPS)
async def test_login_holds_when_the_clock_is_set_back(services: Services, clock: ManualClock, seconds: int) -> None:
    """Nobody is thrown out, or kept out, because the date is earlier than it was."""
    opened = await services.accounts.log_in("alice", PASSWORD)

    clock.set(clock.now() - seconds)
    again = await services.accounts.log_in("alice", PASSWORD)

    assert _denials(services, opened.token, again.token) == [None, None]
    assert (await services.accounts.renew(opened.claims)).claims.sid == opened.claims.sid


@pytest.mark.parametrize("seconds", STEPS)
async def test_ended_session_stays_ended_when_the_clock_is_set_ahead_and_back(
    services: Services, clock: ManualClock, seconds: int
) -> None:
    """What a date in the future makes look old is needed again once the date is right, also by a server that starts."""
    opened, another = [await services.accounts.log_in("alice", PASSWORD) for _ in range(2)]
    await services.sessions.end(opened.claims.sid, reason="logout")
    # The newest event is kept anyway.
    await services.sessions.end(another.claims.sid, reason="logout")
    now = clock.now()

    clock.set(now + seconds)
    await services.feed.read()
    await services.housekeeping.prune()
    clock.set(now)
    await services.feed.read()

    assert _denials(services, opened.token) == ["session_ended"]
    async with open_services(services.settings, clock=clock) as started_later:
        await started_later.feed.read()
        assert _denials(started_later, opened.token) == ["session_ended"]


@pytest.mark.parametrize("seconds", STEPS)
async def test_nobody_is_locked_out_when_the_clock_is_set(services: Services, clock: ManualClock, seconds: int) -> None:
    """A block that was written under another date does not last longer than the longest one."""
    for now in (clock.now() + seconds, clock.now() - seconds):
        clock.set(now)
        opened = await services.accounts.log_in("alice", PASSWORD)
        assert _denials(services, opened.token) == [None]


def _denials(services: Services, *tokens: str) -> list[str | None]:
    return [services.checker.check(token).denial for token in tokens]
