"""The contract of user stores, on memory, SQLite and PostgreSQL."""

import pytest

from tests.fakes import ManualClock
from tornado_ds.snapshot import SessionEvent
from tornado_ds.storage.database import Database
from tornado_ds.storage.memory import MemoryUserStore
from tornado_ds.storage.sql import SQLAlchemyUserStore, SQLSessionStore
from tornado_ds.testing import Announce, UserStoreContract
from tornado_ds.users import User, UserStore


class TestMemoryUserStore(UserStoreContract):
    """Users in a dictionary."""

    @pytest.fixture
    def store(self, clock: ManualClock) -> UserStore:
        return MemoryUserStore(clock=clock)


class TestSQLAlchemyUserStore(UserStoreContract):
    """Users in SQLite and PostgreSQL."""

    @pytest.fixture
    def store(self, database: Database) -> UserStore:
        return SQLAlchemyUserStore(database)

    @pytest.fixture
    def announce(self, database: Database) -> Announce:
        async def announce(user: User) -> None:
            event = SessionEvent(
                kind="user.changed", username=user.username, version=user.version, created_at=0, expires_at=1
            )
            await SQLSessionStore(database).record([event])

        return announce
