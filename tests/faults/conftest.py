"""A server's services whose way to PostgreSQL can be made slow, dead or short; and what whole servers need."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr
from tornado.ioloop import IOLoop

from benchmarks.traffic import Place, settings_of
from tests.canaries import WEBHOOK_SECRET
from tests.postgresql import run_now
from tests.proxy import Proxy
from tests.web.browser import PASSWORD
from tornado_ds.app import open_services, prepare_database
from tornado_ds.services import Services
from tornado_ds.settings import Settings
from tornado_ds.storage.database import Database, parse_url
from tornado_ds.users import User
from torture.cast import Cast, make_cast


@pytest.fixture
def proxy(postgresql_url: str, io_loop: IOLoop) -> Iterator[Proxy]:
    """What stands between us and PostgreSQL."""
    socket = f"{postgresql_url.partition('?host=')[2]}/.s.PGSQL.5432"
    stack = AsyncExitStack()
    yield io_loop.run_sync(lambda: stack.enter_async_context(Proxy(lambda: asyncio.open_unix_connection(socket))))
    io_loop.run_sync(stack.aclose)


@pytest.fixture
def proxied_url(postgresql_url: str, proxy: Proxy) -> str:
    """The URL of the database behind the proxy."""
    name = postgresql_url.partition("?")[0].rpartition("/")[2]
    return f"postgresql://postgres@127.0.0.1:{proxy.port}/{name}"


@pytest.fixture
def database(proxied_url: str, io_loop: IOLoop) -> Iterator[Database]:
    """The database behind the proxy, which has a second for each answer."""
    database = Database(parse_url(proxied_url), seconds=1)
    yield database
    io_loop.run_sync(database.close)


@pytest.fixture
def patient_database(proxied_url: str, io_loop: IOLoop) -> Iterator[Database]:
    """The same with time for an answer on a busy machine."""
    database = Database(parse_url(proxied_url), seconds=2)
    yield database
    io_loop.run_sync(database.close)


@pytest.fixture
def services(proxied_url: str, settings: Settings, io_loop: IOLoop) -> Iterator[Services]:
    """All services over the database behind the proxy."""
    settings = settings.model_copy(update={"database_url": SecretStr(proxied_url)})
    stack = AsyncExitStack()
    yield io_loop.run_sync(lambda: stack.enter_async_context(open_services(settings)))
    io_loop.run_sync(stack.aclose)


@pytest.fixture
def alice(services: Services, io_loop: IOLoop) -> User:
    """A user."""
    user: User = io_loop.run_sync(lambda: services.accounts.add("alice", PASSWORD))
    return user


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Where a server has its data and its log."""
    return Place(folder=tmp_path, secret=WEBHOOK_SECRET)


@pytest.fixture
def cast(place: Place) -> Cast:
    """Tokens and people in an SQLite database at `place`."""
    settings = settings_of(place.folder)
    run_now(lambda: prepare_database(settings))
    return make_cast(settings)
