"""What a seed file may say of a user: rows in, checked entries out."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tornado_ds.errors import SeedError, UserDataError
from tornado_ds.passwords import check_password, check_password_hash, legacy_hash
from tornado_ds.seed_formats import Row
from tornado_ds.users import MAX_USERNAME, check_data, check_username, username_key

# deepstream's own users.yml spells two of them in its own way.
_KEYS = {"serverData": "server_data", "clientData": "client_data"}
_KINDS: dict[str, tuple[type, str]] = {
    "username": (str, "text; put it in quotes"),
    "password": (str, "text; put it in quotes"),
    "password_hash": (str, "text; put it in quotes"),
    "server_data": (dict, "a mapping"),
    "client_data": (dict, "a mapping"),
    "roles": (list, "a list"),
    "disabled": (bool, "true or false"),
}

_LOOKS_LIKE_BCRYPT = re.compile(r"\$2[abxy]\$\d\d\$.{53}")
_LOOKS_LIKE_DEEPSTREAM = re.compile(r"[A-Za-z0-9+/]{20,}={1,2}[A-Za-z0-9+/]{20,}={0,2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepstreamHash:
    """How deepstream made the passwords of its users.yml: `hash`, `iterations` and `keyLength` in its config.yml."""

    algorithm: str
    iterations: int
    key_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One user of a seed file, checked; None is what the file does not say."""

    line: int
    username: str
    password: str | None = field(default=None, repr=False)
    password_hash: str | None = field(default=None, repr=False)
    server_data: Mapping[str, Any] | None = None
    client_data: Mapping[str, Any] | None = None
    disabled: bool | None = None

    @property
    def has_password(self) -> bool:
        return self.password is not None or self.password_hash is not None


def check_rows(
    rows: Iterable[Row], *, min_password_length: int, deepstream_hash: DeepstreamHash | None = None
) -> list[Entry]:
    """
    Return the entries of *rows*; with *deepstream_hash* their `password` is what deepstream stored.

    Raises:
        SeedError: A row breaks a rule; the text names line, user and reason, and never the password.
    """
    entries: dict[str, Entry] = {}
    for row in rows:
        username, fields = _named_fields(row)
        try:
            entry = _entry(row.line, username, fields, min_password_length, deepstream_hash)
        except UserDataError as exc:
            raise row_error(row.line, username, exc) from exc
        first = entries.setdefault(username_key(username), entry)
        if first is not entry:
            raise row_error(row.line, username, f"this user is on line {first.line} already")
    return list(entries.values())


def with_roles(server_data: Mapping[str, Any] | None, roles: Sequence[Any] | None) -> Mapping[str, Any] | None:
    """
    Return *server_data* with *roles* in it; None for either is what is not said.

    Raises:
        UserDataError: Roles are in both, or several are written as one.
    """
    if roles is None:
        return server_data
    if several := next((role for role in roles if isinstance(role, str) and "," in role), None):
        raise UserDataError(f"the role {several!a:.80} holds a comma: name roles one by one, with blanks between")
    if server_data is not None and "roles" in server_data:
        raise UserDataError("roles are there twice, once in server_data")
    return {**(server_data or {}), "roles": list(roles)}


def row_error(line: int, username: str, reason: object) -> SeedError:
    """Return the error that says where in the file the trouble is."""
    return SeedError(f"line {line}, user {username[:MAX_USERNAME]!r}: {reason}")


def _named_fields(row: Row) -> tuple[str, dict[str, Any]]:
    """Return the name and the other fields of *row*, by the names that we have for them."""
    fields = {} if row.fields is None and row.name is not None else row.fields
    if not isinstance(fields, Mapping):
        raise SeedError(f"line {row.line}: an entry must be keys with values: {', '.join(_KINDS)}")
    username = fields.get("username") if row.name is None else row.name
    if not isinstance(username, str):
        raise SeedError(f"line {row.line}: the entry needs a username, as text; put numbers and the like in quotes")
    named: dict[str, Any] = {}
    for key, value in fields.items():
        name = _KEYS.get(key, key)
        if name not in _KINDS or (name == "username" and row.name is not None):
            raise row_error(row.line, username, f"there is no key {str(key)[:40]!r}; there are {', '.join(_KINDS)}")
        if name in named:
            raise row_error(row.line, username, f"{name} is there twice, in two spellings")
        named[name] = value
    return username, {name: value for name, value in named.items() if value is not None and name != "username"}


def _entry(
    line: int,
    username: str,
    fields: Mapping[str, Any],
    min_password_length: int,
    deepstream_hash: DeepstreamHash | None,
) -> Entry:
    for name, value in fields.items():
        kind, what = _KINDS[name]
        if not isinstance(value, kind):
            raise UserDataError(f"{name} must be {what}")
    check_username(username)
    server_data = with_roles(fields.get("server_data"), fields.get("roles"))
    client_data = fields.get("client_data")
    check_data(server_data or {}, client_data or {})
    password, password_hash = _secrets(username, fields, min_password_length, deepstream_hash)
    return Entry(
        line=line,
        username=username,
        password=password,
        password_hash=password_hash,
        server_data=server_data,
        client_data=client_data,
        disabled=fields.get("disabled"),
    )


def _secrets(
    username: str, fields: Mapping[str, Any], min_length: int, deepstream_hash: DeepstreamHash | None
) -> tuple[str | None, str | None]:
    """Return the password, or the hash, that an entry holds."""
    password, password_hash = fields.get("password"), fields.get("password_hash")
    if password is not None and password_hash is not None:
        raise UserDataError("say password or password_hash, not both")
    if password_hash is not None:
        return None, check_password_hash(password_hash)
    if password is None:
        return None, None
    if deepstream_hash is not None:
        return None, legacy_hash(
            password,
            algorithm=deepstream_hash.algorithm,
            iterations=deepstream_hash.iterations,
            key_length=deepstream_hash.key_length,
        )
    if _LOOKS_LIKE_BCRYPT.fullmatch(password):
        raise UserDataError("the password is a bcrypt hash: call it password_hash")
    if _LOOKS_LIKE_DEEPSTREAM.fullmatch(password):
        raise UserDataError("the password is a hash of deepstream's users.yml: use --deepstream-hash")
    return check_password(password, username=username, min_length=min_length), None
