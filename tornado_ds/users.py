"""Users, the rules for their names and data, and what a user store must do."""

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import orjson

from tornado_ds.errors import UserDataError

MAX_USERNAME = 128
MAX_DATA_BYTES = 2048

# What the server itself puts beside a user's data, see `tornado_ds.gate`.
RESERVED_SERVER_DATA = frozenset({"sid", "expiresAt", "version"})
RESERVED_CLIENT_DATA = frozenset({"username", "expiresAt", "token"})

# deepstream 5+ logs anonymous clients in under this name.
RESERVED_USERNAMES = frozenset({"OPEN"})

# Control, format (bidi and zero-width among them), surrogate, private use,
# unassigned, line and paragraph separators: names that look like other names.
_REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

# Letters and marks that show nothing (Unicode 15, section 5.21), and the blank of Braille.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


@dataclass(frozen=True, slots=True)
class User:
    """
    Somebody who can log in, as a store hands it out.

    Times are whole seconds since the epoch. *version* grows by one with every
    change that a live session must hear of; a re-created user continues it.
    """

    username: str
    password_hash: str = field(repr=False)
    server_data: Mapping[str, Any] = field(default_factory=dict)
    client_data: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1
    disabled_at: int | None = None
    created_at: int = 0
    updated_at: int = 0

    @property
    def is_disabled(self) -> bool:
        return self.disabled_at is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChanges:
    """What to change in a user; None leaves a field as it is."""

    password_hash: str | None = field(default=None, repr=False)
    server_data: Mapping[str, Any] | None = None
    client_data: Mapping[str, Any] | None = None
    disabled: bool | None = None


class UserStore(Protocol):
    """
    Where users live. `tornado_ds.testing` holds the suite that says what each method promises.

    Names are looked up by `username_key`, so any equivalent spelling finds the
    user; values that come back carry the spelling they were added with. A store
    that is managed elsewhere raises `ReadOnlyUserStoreError` from the methods
    that write, and `StorageError` from any method when it cannot be reached.
    It may say so beforehand, see `is_read_only`.
    """

    async def get(self, username: str) -> User | None:
        """Return the user of that name, or None."""
        ...

    async def get_many(self, usernames: Collection[str]) -> dict[str, User]:
        """Return the users there are, by the name they were asked for."""
        ...

    async def list(self, *, after: str | None = None, limit: int = 100) -> Sequence[User]:
        """Return up to *limit* users in the order of their keys, from behind the user *after*."""
        ...

    async def add(self, users: Sequence[User]) -> None:
        """
        Add all of *users*, or none.

        Raises:
            UserExistsError: One of the names is taken.
        """
        ...

    async def update(self, username: str, changes: UserChanges) -> User:
        """
        Apply *changes*, count the version up, and return the user as it is now.

        Raises:
            UserNotFoundError: There is no such user.
        """
        ...

    async def rehash(self, username: str, *, old: str, new: str) -> None:
        """Replace the hash *old* by *new*, a hash of the same password; do nothing if *old* is gone."""
        ...

    async def remove(self, username: str) -> User:
        """
        Remove the user and return it as it was.

        Raises:
            UserNotFoundError: There is no such user.
        """
        ...


def is_read_only(store: UserStore) -> bool:
    """True if *store* says, with an attribute of this name, that its users are managed elsewhere."""
    return getattr(store, "is_read_only", False) is True


def username_key(username: str) -> str:
    """Return what makes a name unique: NFKC, case folded, NFKC again (Unicode 15, section 3.13, D146)."""
    folded = unicodedata.normalize("NFKC", username).casefold()
    return unicodedata.normalize("NFKC", folded)


def is_username(text: str) -> bool:
    """True if a user of that name can exist; anything else need not be looked up."""
    try:
        check_username(text)
    except UserDataError:
        return False
    return True


def check_username(username: str) -> str:
    """
    Return *username* if it can be one: 1 to 128 visible characters.

    Raises:
        UserDataError: It cannot; the text says why.
    """
    if not 1 <= len(username) <= MAX_USERNAME:
        raise UserDataError(f"a username has 1 to {MAX_USERNAME} characters, this one has {len(username)}")
    if not all(_is_visible(character) for character in username):
        raise UserDataError(f"the username {username!a} has characters that cannot be seen")
    if username != username.strip():
        raise UserDataError(f"the username {username!a} begins or ends with a blank")
    if username in RESERVED_USERNAMES:
        raise UserDataError(f"the username {username} is what deepstream calls anonymous clients")
    if not username_key(username).strip():
        raise UserDataError(f"the username {username!a} has no letters")
    return username


def check_data(server_data: Mapping[str, Any], client_data: Mapping[str, Any]) -> None:
    """
    Accept data that fits into a token and says nothing that the server says itself.

    Raises:
        UserDataError: Not JSON, over 2 KiB together, a reserved key, or roles that are no list of words.
    """
    for what, data, reserved in (
        ("server_data", server_data, RESERVED_SERVER_DATA),
        ("client_data", client_data, RESERVED_CLIENT_DATA),
    ):
        taken = sorted(reserved & data.keys())
        if taken:
            raise UserDataError(f"{what} may not hold {', '.join(taken)}: the server sets that itself")
    if not _are_roles(server_data.get("roles", [])):
        raise UserDataError(
            'each of the roles must be text that can be seen, and there once, in a list: "roles": ["editor", "admin"]'
        )
    size = len(_as_json("server_data", server_data)) + len(_as_json("client_data", client_data))
    if size > MAX_DATA_BYTES:
        raise UserDataError(
            f"server_data and client_data take {size} bytes of JSON, {MAX_DATA_BYTES} fit into a cookie"
        )


def with_data(
    user: User, *, server_data: Mapping[str, Any] | None = None, client_data: Mapping[str, Any] | None = None
) -> User:
    """Return *user* with these data; None leaves them as they are."""
    return replace(
        user,
        server_data=user.server_data if server_data is None else server_data,
        client_data=user.client_data if client_data is None else client_data,
    )


def _are_roles(value: object) -> bool:
    # A rule asks whether roles include 'editor', which is true of the text 'subeditor' too.
    return isinstance(value, list) and all(map(_is_role, value)) and len(set(value)) == len(value)


def _is_role(value: object) -> bool:
    return isinstance(value, str) and value != "" and value == value.strip() and all(map(_is_visible, value))


def _is_visible(character: str) -> bool:
    return unicodedata.category(character) not in _REFUSED_CATEGORIES and _INVISIBLE.match(character) is None


def _as_json(what: str, data: Mapping[str, Any]) -> bytes:
    try:
        # One level down, where it will be in a token: orjson's depth is limited.
        encoded = orjson.dumps([dict(data)])[1:-1]
        # orjson writes NaN and infinity as null; what is stored must be what was given.
        unchanged = orjson.loads(encoded) == dict(data)
    except (TypeError, ValueError, RecursionError) as exc:
        raise UserDataError(f"{what} is not JSON: {exc}") from exc
    if not unchanged:
        raise UserDataError(f"{what} is not JSON: it holds a number or a key that JSON has not")
    return encoded
