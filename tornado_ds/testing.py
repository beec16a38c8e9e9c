"""
The contract of a user store, as tests that any store can run. Needs pytest and pytest-tornado.

    class TestMyStore(UserStoreContract):
        @pytest.fixture
        def store(self) -> UserStore:
            return MyStore()

See docs/user-stores.md.
"""

# The hashes here are of no password at all.
# ruff: noqa: S106, S107

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tornado_ds.errors import ReadOnlyUserStoreError, StorageError, UserExistsError, UserNotFoundError
from tornado_ds.users import User, UserChanges, UserStore, is_read_only, username_key

Announce = Callable[[User], Awaitable[None]]

# Names that nobody has, some of which no database can even look up.
_NOBODY = [
    pytest.param("nobody", id="unknown"),
    pytest.param("", id="empty"),
    pytest.param("x" * 10_000, id="very-long"),
    pytest.param("%", id="percent"),
    pytest.param("alice' OR '1'='1", id="quotes"),
    pytest.param("al\0ice", id="nul"),
    pytest.param("\ud800", id="lone-surrogate"),
]

_DATA = [
    pytest.param({}, id="empty"),
    pytest.param({"roles": ["editor", "admin"], "deep": {"er": [{}, [], [None]]}}, id="nested"),
    pytest.param({"yes": True, "no": False, "none": None, "one": 1, "text": "1"}, id="types"),
    pytest.param({"max": 2**63 - 1, "min": -(2**63), "beyond-float": 2**53 + 1}, id="64-bit-integers"),
    pytest.param({"third": 1 / 3, "tiny": 5e-324, "huge": 1.7976931348623157e308}, id="floats"),
    pytest.param({"😀": "👩‍👩‍👧", "naïve": "na\u0131\u0308ve", "עברית": "\u200f"}, id="unicode"),
    pytest.param({"": "", "a b": "'; --", '"': "\\", "\x01": "\x7f\r\n\t", "null": "null"}, id="odd-text"),
]


@pytest.mark.gen_test(timeout=30)
class UserStoreContract:
    """What every store promises that takes changes. Override `store`."""

    @pytest.fixture
    def store(self) -> UserStore:
        """A store without users, for one test."""
        raise NotImplementedError("override the fixture `store`: return an empty user store")

    @pytest.fixture
    def announce(self) -> Announce:
        """What the server does after a change. Override it if the store learns versions from the change feed."""

        async def announce(_: User) -> None: ...

        return announce

    async def test_get_returns_the_user_when_it_was_added(self, store: UserStore) -> None:
        """A user comes back as it was added, at version 1 and with times."""
        await store.add([_user("Alice", server_data={"roles": ["editor"]}, client_data={"colour": "green"})])

        found = await store.get("Alice")

        assert found is not None
        assert found.created_at > 0
        assert found.updated_at > 0
        assert found == _user(
            "Alice",
            server_data={"roles": ["editor"]},
            client_data={"colour": "green"},
            created_at=found.created_at,
            updated_at=found.updated_at,
        )

    async def test_get_keeps_the_times_when_they_were_added(self, store: UserStore) -> None:
        """A user who is moved from another store stays as old, and as disabled, as it is."""
        user = _user("alice", created_at=1_000, updated_at=2_000, disabled_at=3_000)

        await store.add([user])

        assert await store.get("alice") == user

    @pytest.mark.parametrize("name", _NOBODY)
    async def test_get_returns_none_when_nobody_has_the_name(self, store: UserStore, name: str) -> None:
        """A name that nobody has is no error, unless the database cannot even be asked for it."""
        await store.add([_user("alice")])

        found = await _none_if_it_cannot_be_asked(store.get(name))

        assert found is None

    @pytest.mark.parametrize(
        ("added", "asked"),
        [
            pytest.param("Alice", "aLICE", id="case"),
            pytest.param("Straße", "STRASSE", id="sharp-s"),
            pytest.param("\u212bngstro\u0308m", "ångström", id="composition"),
            pytest.param("\uff21\uff4c\uff49\uff43\uff45", "alice", id="full-width"),
            pytest.param("ﬁona", "FIONA", id="ligature"),
            pytest.param("Σίσυφος", "ΣΊΣΥΦΟΣ", id="final-sigma"),
            pytest.param("\u0345\u0301", "\u0301\u03b9", id="reordered-by-folding"),
        ],
    )
    async def test_get_finds_the_user_when_the_spelling_is_equivalent(
        self, store: UserStore, added: str, asked: str
    ) -> None:
        """Equivalent spellings are one user, who keeps the spelling that was added."""
        await store.add([_user(added)])

        found = await store.get(asked)

        assert found is not None
        assert found.username == added

    @pytest.mark.parametrize("data", _DATA)
    async def test_data_come_back_equal_when_they_are_json(self, store: UserStore, data: dict[str, Any]) -> None:
        """Whatever JSON can say is stored as it is, by adding and by updating."""
        await store.add([_user("alice", server_data=data), _user("bob")])
        await store.update("bob", UserChanges(client_data=data))

        alice, bob = await store.get("alice"), await store.get("bob")

        assert alice is not None
        assert bob is not None
        assert (alice.server_data, alice.client_data) == (data, {})
        assert (bob.server_data, bob.client_data) == ({}, data)

    async def test_get_many_answers_by_the_names_asked(self, store: UserStore) -> None:
        """Users come back under the spellings that were asked for; unknown ones are left out."""
        await store.add([_user("Alice"), _user("Bob"), _user("Carol")])

        found = await store.get_many(["ALICE", "alice", "Bob", "nobody"])

        assert {asked: user.username for asked, user in found.items()} == {
            "ALICE": "Alice",
            "alice": "Alice",
            "Bob": "Bob",
        }

    async def test_get_many_returns_nothing_when_nothing_is_asked(self, store: UserStore) -> None:
        """No names, no users."""
        await store.add([_user("alice")])

        assert await store.get_many([]) == {}

    async def test_list_is_in_the_order_of_keys(self, store: UserStore) -> None:
        """Users are listed by the code points of their keys, whatever the language of the database."""
        names = ["_", "a", "A b", "a-c", "aa", "B", "Z", "é", "zz", "ß", "Ж", "\ufffd", "😀", "10", "9"]
        await store.add([_user(name) for name in names])

        listed = await store.list()

        assert [user.username for user in listed] == sorted(names, key=username_key)

    async def test_list_returns_every_user_once_when_it_is_paged(self, store: UserStore) -> None:
        """Pages follow each other without gaps or repetitions, also behind a user who is gone."""
        names = [f"user{number:02}" for number in range(7)]
        await store.add([_user(name) for name in names])

        first = await store.list(limit=3)
        await store.remove(first[-1].username)
        second = await store.list(after=first[-1].username.upper(), limit=3)
        third = await store.list(after=second[-1].username, limit=3)

        assert [[user.username for user in page] for page in (first, second, third)] == [
            names[:3],
            names[3:6],
            names[6:],
        ]

    async def test_add_changes_nothing_when_a_name_is_taken(self, store: UserStore) -> None:
        """All users of one call are added, or none."""
        await store.add([_user("Straße", password_hash="before")])

        with pytest.raises(UserExistsError):
            await store.add([_user("bob"), _user("STRASSE", password_hash="after"), _user("carol")])

        assert [(user.username, user.password_hash) for user in await store.list()] == [("Straße", "before")]

    async def test_add_changes_nothing_when_two_names_are_equivalent(self, store: UserStore) -> None:
        """Two spellings of one name in one call are a name that is taken."""
        with pytest.raises(UserExistsError):
            await store.add([_user("bob"), _user("Alice"), _user("ALICE")])

        assert list(await store.list()) == []

    async def test_add_takes_nobody_when_there_are_none(self, store: UserStore) -> None:
        """Adding nobody is no error."""
        await store.add([])

        assert list(await store.list()) == []

    async def test_add_succeeds_once_when_the_name_is_added_many_times_at_once(self, store: UserStore) -> None:
        """Of several who want a name at the same moment, exactly one gets it."""
        wanted = [_user(name, password_hash=name) for name in ("alice", "Alice", "ALICE", "aLiCe")]

        outcomes = await asyncio.gather(*(store.add([user]) for user in wanted), return_exceptions=True)

        winners = [user for user, outcome in zip(wanted, outcomes, strict=True) if outcome is None]
        assert len(winners) == 1
        assert [type(outcome) for outcome in outcomes if outcome is not None] == [UserExistsError] * 3
        assert [user.password_hash for user in await store.list()] == [winners[0].password_hash]

    async def test_add_continues_the_version_when_the_user_was_there_before(
        self, store: UserStore, announce: Announce
    ) -> None:
        """A re-created user has a higher version than any token of the one before."""
        await store.add([_user("alice")])
        changed = await store.update("alice", UserChanges(client_data={"colour": "green"}))
        await announce(changed)
        await store.remove("alice")

        await store.add([_user("alice")])

        again = await store.get("alice")
        assert again is not None
        assert again.version > changed.version

    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param({"password_hash": "new"}, id="password-hash"),
            pytest.param({"server_data": {"new": 1}}, id="server-data"),
            pytest.param({"client_data": {"new": 1}}, id="client-data"),
            pytest.param({"server_data": {}, "client_data": {}}, id="emptied"),
            pytest.param({}, id="nothing"),
        ],
    )
    async def test_update_leaves_other_fields_when_one_changes(self, store: UserStore, changes: dict[str, Any]) -> None:
        """An update changes what it names, counts the version up, and returns what is stored."""
        user = _user("Alice", server_data={"old": 1}, client_data={"old": 2}, created_at=1_000, updated_at=1_000)
        await store.add([user])

        updated = await store.update("ALICE", UserChanges(**changes))

        assert updated == await store.get("Alice")
        assert updated == replace(user, **changes, version=2, updated_at=updated.updated_at)
        assert updated.updated_at > 1_000

    async def test_update_leaves_other_users_alone(self, store: UserStore) -> None:
        """A change is a change of one user."""
        await store.add([_user("alice"), _user("bob")])
        before = await store.get("bob")

        await store.update("alice", UserChanges(password_hash="new", disabled=True))

        assert await store.get("bob") == before

    async def test_update_keeps_the_moment_when_the_user_is_disabled_already(self, store: UserStore) -> None:
        """Disabling twice does not hide since when the account is disabled."""
        await store.add([_user("alice", disabled_at=1_000)])

        updated = await store.update("alice", UserChanges(disabled=True))

        assert (updated.disabled_at, updated.version) == (1_000, 2)

    async def test_update_disables_and_enables(self, store: UserStore) -> None:
        """A disabled user is disabled until enabled; other changes leave that as it is."""
        await store.add([_user("alice")])

        disabled = await store.update("alice", UserChanges(disabled=True))
        changed = await store.update("alice", UserChanges(client_data={"colour": "green"}))
        enabled = await store.update("alice", UserChanges(disabled=False))

        assert [user.is_disabled for user in (disabled, changed, enabled)] == [True, True, False]
        assert [user.version for user in (disabled, changed, enabled)] == [2, 3, 4]

    async def test_update_gives_different_versions_when_many_come_at_once(self, store: UserStore) -> None:
        """No two changes share a version, or a live session would miss one of them."""
        await store.add([_user("alice")])

        updated = await asyncio.gather(
            *(store.update("alice", UserChanges(client_data={"number": number})) for number in range(8))
        )

        last = max(updated, key=lambda user: user.version)
        assert sorted(user.version for user in updated) == list(range(2, 10))
        assert await store.get("alice") == last

    async def test_rehash_replaces_the_hash_and_nothing_else(self, store: UserStore) -> None:
        """A new hash of the same password is no change that a live session must hear of."""
        await store.add([_user("alice", password_hash="old")])
        before = await store.get("alice")

        await store.rehash("ALICE", old="old", new="new")

        assert before is not None
        assert await store.get("alice") == replace(before, password_hash="new")

    async def test_rehash_does_nothing_when_the_password_was_changed(self, store: UserStore) -> None:
        """A new password that was set meanwhile is not overwritten with a hash of the old one."""
        await store.add([_user("alice", password_hash="old")])
        changed = await store.update("alice", UserChanges(password_hash="changed"))

        await store.rehash("alice", old="old", new="new")

        assert await store.get("alice") == changed

    async def test_rehash_does_nothing_when_the_user_is_gone(self, store: UserStore) -> None:
        """A user who was removed meanwhile is not an error."""
        await store.rehash("alice", old="old", new="new")

        assert await store.get("alice") is None

    async def test_remove_returns_the_user_as_it_was(self, store: UserStore) -> None:
        """A removed user is gone, and is told from all others."""
        await store.add([_user("Alice"), _user("bob")])
        before = await store.get("Alice")

        removed = await store.remove("ALICE")

        assert removed == before
        assert [user.username for user in await store.list()] == ["bob"]

    @pytest.mark.parametrize("name", _NOBODY)
    async def test_writing_fails_when_nobody_has_the_name(self, store: UserStore, name: str) -> None:
        """A change of nobody is an error, and changes nobody."""
        await store.add([_user("alice")])
        before = await store.list()

        with pytest.raises((UserNotFoundError, StorageError)):
            await store.update(name, UserChanges(disabled=True))
        with pytest.raises((UserNotFoundError, StorageError)):
            await store.remove(name)

        assert await store.list() == before

    async def test_is_read_only_is_false(self, store: UserStore) -> None:
        """A store that takes changes does not say that it takes none: people could not change their passwords."""
        assert not is_read_only(store)


@pytest.mark.gen_test(timeout=30)
class ReadOnlyUserStoreContract:
    """What a store promises whose users are managed elsewhere, in a directory say. Override `store` and `usernames`."""

    @pytest.fixture
    def store(self) -> UserStore:
        """A store with at least two users, for one test."""
        raise NotImplementedError("override the fixture `store`: return a user store with at least two users")

    @pytest.fixture
    def usernames(self) -> Sequence[str]:
        """The names of all users of the store, as the store spells them."""
        raise NotImplementedError("override the fixture `usernames`: return the names of all users of the store")

    async def test_get_finds_users_by_equivalent_spellings(self, store: UserStore, usernames: Sequence[str]) -> None:
        """Equivalent spellings are one user, whose name is the same every time."""
        asked = [spelling for name in usernames for spelling in (name, username_key(name), name.upper())]

        found = [await store.get(name) for name in asked]

        assert [user and user.username for user in found] == [name for name in usernames for _ in range(3)]

    @pytest.mark.parametrize("name", _NOBODY)
    async def test_get_returns_none_when_nobody_has_the_name(self, store: UserStore, name: str) -> None:
        """A name that nobody has is no error, unless the directory cannot even be asked for it."""
        found = await _none_if_it_cannot_be_asked(store.get(name))

        assert found is None

    async def test_get_many_answers_by_the_names_asked(self, store: UserStore, usernames: Sequence[str]) -> None:
        """Users come back under the spellings that were asked for; unknown ones are left out."""
        first, second, *_ = usernames

        found = await store.get_many([first.upper(), second, "nobody"])

        assert {asked: user.username for asked, user in found.items()} == {first.upper(): first, second: second}

    async def test_list_returns_every_user_once_when_it_is_paged(
        self, store: UserStore, usernames: Sequence[str]
    ) -> None:
        """Pages of one user each go through all of them, by the code points of their keys."""
        pages = [await store.list(limit=1)]
        while pages[-1]:
            pages.append(await store.list(after=pages[-1][-1].username, limit=1))

        assert [user.username for page in pages for user in page] == sorted(usernames, key=username_key)

    async def test_writing_is_refused(self, store: UserStore, usernames: Sequence[str]) -> None:
        """Every method that writes says that the users are managed elsewhere, and writes nothing."""
        before = await store.list()
        name = usernames[0]

        for write in (
            store.add([_user("somebody-new")]),
            store.update(name, UserChanges(disabled=True)),
            store.rehash(name, old=before[0].password_hash, new="new"),
            store.remove(name),
        ):
            with pytest.raises(ReadOnlyUserStoreError):
                await write

        assert await store.list() == before

    async def test_is_read_only_is_true_if_it_is_there(self, store: UserStore) -> None:
        """Whether it says beforehand that it takes no changes is up to the store; it may not say anything else."""
        assert getattr(store, "is_read_only", True) is True


def _user(username: str, *, password_hash: str = "hash", **fields: Any) -> User:
    return User(username, password_hash, **fields)


async def _none_if_it_cannot_be_asked(found: Awaitable[User | None]) -> User | None:
    try:
        return await found
    except StorageError:
        return None
