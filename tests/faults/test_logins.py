"""A database that goes away in the middle of a login, whose attempt it has counted already."""

from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from pydantic import SecretStr
from tornado.ioloop import IOLoop

from tests.web.browser import PASSWORD
from tornado_ds.accounts import Accounts
from tornado_ds.app import open_services
from tornado_ds.errors import StorageError
from tornado_ds.services import Services
from tornado_ds.settings import Settings
from tornado_ds.storage.memory import MemoryUserStore
from tornado_ds.users import User

pytestmark = pytest.mark.gen_test(timeout=30)


class FickleStore(MemoryUserStore):
    """A store that answers before a password was looked at, and no more after that."""

    def __init__(self) -> None:
        super().__init__()
        self.is_fickle = False
        self._asked = 0

    async def get(self, username: str) -> User | None:
        self._asked += 1
        if self.is_fickle and self._asked % 2 == 0:
            raise StorageError("the database does not answer")
        return await super().get(username)


@pytest.fixture
def services(sqlite_url: str, settings: Settings, io_loop: IOLoop) -> Iterator[Services]:
    """What logins need besides users."""
    settings = settings.model_copy(update={"database_url": SecretStr(sqlite_url)})
    stack = AsyncExitStack()
    yield io_loop.run_sync(lambda: stack.enter_async_context(open_services(settings)))
    io_loop.run_sync(stack.aclose)


@pytest.fixture
def users(services: Services, io_loop: IOLoop) -> FickleStore:
    """A store with alice in it."""
    users = FickleStore()
    alice = User("alice", services.passwords.hash_now(PASSWORD))
    io_loop.run_sync(lambda: users.add([alice]))
    return users


@pytest.fixture
def accounts(services: Services, users: FickleStore) -> Accounts:
    """Accounts over the fickle store."""
    return Accounts(
        users,
        passwords=services.passwords,
        throttle=services.throttle,
        sessions=services.sessions,
        audit=services.audit,
        min_password_length=12,
        metrics=services.metrics,
    )


async def test_nobody_is_throttled_when_the_database_went_away_in_the_middle(
    accounts: Accounts, users: FickleStore, services: Services
) -> None:
    """Whoever had the right password every time is not told that it was wrong too often."""
    users.is_fickle = True
    for _ in range(8):
        with pytest.raises(StorageError):
            await accounts.log_in("alice", PASSWORD)
    users.is_fickle = False

    opened = await accounts.log_in("alice", PASSWORD)

    assert opened.claims.username == "alice"
    assert await services.throttle.list(limit=10) == []
