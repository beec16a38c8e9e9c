"""The databases that storage is proved on, and what stands on them."""

from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from pydantic import SecretStr
from tornado.ioloop import IOLoop

from tests.fakes import ManualClock
from tornado_ds.app import open_services
from tornado_ds.services import Services
from tornado_ds.sessions import SessionStore
from tornado_ds.settings import Settings
from tornado_ds.storage.database import COMMAND_SECONDS, Database, parse_url
from tornado_ds.storage.memory import MemorySessionStore
from tornado_ds.storage.sql import SQLSessionStore

pytest.register_assert_rewrite("tornado_ds.testing")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with our tables and nothing in them, of either kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def database(database_url: str, io_loop: IOLoop) -> Iterator[Database]:
    """A database with our tables and nothing in them, of either kind."""
    database = Database(parse_url(database_url), seconds=COMMAND_SECONDS)
    yield database
    io_loop.run_sync(database.close)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def session_store(request: pytest.FixtureRequest, io_loop: IOLoop) -> Iterator[SessionStore]:
    """An empty store of sessions, of every kind."""
    if request.param == "memory":
        yield MemorySessionStore()
        return
    database = Database(parse_url(request.getfixturevalue(f"{request.param}_url")), seconds=COMMAND_SECONDS)
    yield SQLSessionStore(database)
    io_loop.run_sync(database.close)


@pytest.fixture
def services(database_url: str, settings: Settings, clock: ManualClock, io_loop: IOLoop) -> Iterator[Services]:
    """All services over a database of either kind."""
    yield from _open(database_url, settings, clock, io_loop)


@pytest.fixture
def other_services(database_url: str, settings: Settings, clock: ManualClock, io_loop: IOLoop) -> Iterator[Services]:
    """The services of another process, or node, over the same database."""
    yield from _open(database_url, settings, clock, io_loop)


def _open(url: str, settings: Settings, clock: ManualClock, io_loop: IOLoop) -> Iterator[Services]:
    settings = settings.model_copy(update={"database_url": SecretStr(url)})
    stack = AsyncExitStack()
    context = open_services(settings, seconds=COMMAND_SECONDS, clock=clock)
    yield io_loop.run_sync(lambda: stack.enter_async_context(context))
    io_loop.run_sync(stack.aclose)
