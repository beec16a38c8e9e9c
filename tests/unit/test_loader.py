"""Look-ups of users that meet are one query."""

import asyncio
from collections.abc import Collection

import pytest

from tornado_ds.errors import StorageError
from tornado_ds.loader import UserLoader
from tornado_ds.storage.memory import MemoryUserStore
from tornado_ds.users import User


class CountingStore(MemoryUserStore):
    """A memory store that says what it was asked, answers a step later, and fails on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.queries: list[set[str]] = []
        self.was_asked = asyncio.Event()
        self.is_away = False

    async def get_many(self, usernames: Collection[str]) -> dict[str, User]:
        self.queries.append(set(usernames))
        self.was_asked.set()
        await asyncio.sleep(0)
        if self.is_away:
            raise StorageError("away")
        return await super().get_many(usernames)


class MuteStore(MemoryUserStore):
    """A store that does not answer until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()

    async def get_many(self, usernames: Collection[str]) -> dict[str, User]:
        await self.may_answer.wait()
        return {}


class DeafStore(MemoryUserStore):
    """A store that never hears of its first question."""

    is_deaf = True

    async def get_many(self, usernames: Collection[str]) -> dict[str, User]:
        if self.is_deaf:
            self.is_deaf = False
            await asyncio.Event().wait()
        return await super().get_many(usernames)


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.mark.untraced
@pytest.mark.gen_test
async def test_lookups_share_one_query_when_they_come_together(store: CountingStore) -> None:
    """A thousand users asked for at once are one query, and each asker gets their own user."""
    names = [f"user{number}" for number in range(1000)]
    await store.add([User(name, "x") for name in names])
    loader = UserLoader(store)

    found = await asyncio.gather(*(loader.get(name) for name in [*names, "user7", "nobody"]))

    assert [*names, "user7", None] == [user and user.username for user in found]
    assert [{*names, "nobody"}] == store.queries


@pytest.mark.gen_test
async def test_lookup_waits_for_the_next_query_when_one_is_under_way(store: CountingStore) -> None:
    """Whoever asks during a query is not given what that query may have read before."""
    await store.add([User("alice", "old")])
    loader = UserLoader(store)
    first = asyncio.ensure_future(loader.get("alice"))
    await store.was_asked.wait()

    second = await loader.get("alice")

    assert [{"alice"}, {"alice"}] == store.queries
    assert second == await first


@pytest.mark.gen_test
async def test_lookup_fails_for_all_and_works_again_when_the_store_was_away(store: CountingStore) -> None:
    """A failed query fails everybody who waits for it, and nobody who comes later."""
    await store.add([User("alice", "x"), User("bob", "x")])
    loader = UserLoader(store)
    store.is_away = True

    failed = await asyncio.gather(loader.get("alice"), loader.get("bob"), return_exceptions=True)
    store.is_away = False
    later = await loader.get("alice")

    assert [StorageError, StorageError] == [type(error) for error in failed]
    assert later is not None


@pytest.mark.gen_test
async def test_lookup_answers_the_others_when_one_hangs_up(store: CountingStore) -> None:
    """A caller who is cancelled does not take the answer from those who asked for the same user."""
    await store.add([User("alice", "x")])
    loader = UserLoader(store)
    leaving, staying = (asyncio.ensure_future(loader.get("alice")) for _ in range(2))
    await asyncio.sleep(0)

    leaving.cancel()

    assert (await staying) is not None


@pytest.mark.gen_test
async def test_lookup_is_given_up_when_the_store_never_answers() -> None:
    """deepstream gets its answer in time, whatever the store is, and however long others have waited already."""
    store = MuteStore()
    loader = UserLoader(store)

    outcomes = await asyncio.gather(loader.get("alice"), loader.get("bob"), return_exceptions=True)
    store.may_answer.set()

    assert ["the user store does not answer in time"] * 2 == [str(outcome) for outcome in outcomes]
    assert await loader.get("alice") is None


@pytest.mark.gen_test
async def test_lookup_works_again_when_a_query_is_never_answered() -> None:
    """A connection that died without a word costs those who waited for it, and nobody who comes later."""
    store = DeafStore()
    await store.add([User("alice", "x")])
    loader = UserLoader(store)

    with pytest.raises(StorageError):
        await loader.get("alice")

    assert await loader.get("alice") is not None
