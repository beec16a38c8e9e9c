"""What a seed file may say of a user."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tornado_ds.errors import SeedError, UserDataError
from tornado_ds.passwords import legacy_hash
from tornado_ds.seed_entries import DeepstreamHash, Entry, check_rows, with_roles
from tornado_ds.seed_formats import Row, SeedFormat, read_rows
from tornado_ds.users import is_username

PASSWORD = "correct horse battery staple"
BCRYPT = "$2b$04$" + "e" * 22 + "a" * 31

# userA of the users.yml that comes with deepstream.
SAMPLE = "rCOSZxJrgze2AZdVQh12c6ErDMOG0M+Rx5Yu7S5d91c=GS4SbTQYmoaGwjm2shEobg=="
MD5 = DeepstreamHash(algorithm="md5", iterations=100, key_length=32)


def check(*rows: Row, deepstream_hash: DeepstreamHash | None = None) -> list[Entry]:
    return check_rows(rows, min_password_length=12, deepstream_hash=deepstream_hash)


def test_entry_holds_what_the_row_says() -> None:
    """Every key has its place, and roles go into server_data."""
    row = Row(
        7,
        None,
        {
            "username": "alice",
            "password": PASSWORD,
            "server_data": {"team": "blue"},
            "roles": ["editor"],
            "client_data": {"colour": "red"},
            "disabled": True,
        },
    )

    entries = check(row)

    expected = Entry(
        line=7,
        username="alice",
        password=PASSWORD,
        server_data={"team": "blue", "roles": ["editor"]},
        client_data={"colour": "red"},
        disabled=True,
    )
    assert [expected] == entries


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(None, id="nothing"),
        pytest.param({}, id="empty"),
        pytest.param({"password": None, "roles": None, "serverData": None, "disabled": None}, id="nulls"),
    ],
)
def test_entry_is_silent_when_the_row_is(fields: object) -> None:
    """What the row does not say is None, so that an update leaves it as it is."""
    entries = check(Row(1, "alice", fields))

    assert [Entry(line=1, username="alice")] == entries


def test_entry_takes_the_spelling_of_deepstream() -> None:
    """deepstream's users.yml says serverData and clientData."""
    row = Row(1, "alice", {"password_hash": BCRYPT, "serverData": {"a": 1}, "clientData": {"b": 2}})

    entries = check(row)

    expected = Entry(line=1, username="alice", password_hash=BCRYPT, server_data={"a": 1}, client_data={"b": 2})
    assert [expected] == entries


def test_entry_has_a_legacy_hash_when_deepstream_made_the_password() -> None:
    """With deepstream's parameters the password is PBKDF2, and is kept as such."""
    entries = check(Row(1, "userA", {"password": SAMPLE}), deepstream_hash=MD5)

    expected = legacy_hash(SAMPLE, algorithm="md5", iterations=100, key_length=32)
    assert [(None, expected)] == [(entry.password, entry.password_hash) for entry in entries]


@pytest.mark.parametrize("variant", ["2a", "2b", "2y"])
def test_entry_takes_a_ready_hash(variant: str) -> None:
    """All spellings of bcrypt that are in use are good."""
    password_hash = BCRYPT.replace("2b", variant)

    entries = check(Row(1, "alice", {"password_hash": password_hash}))

    assert [password_hash] == [entry.password_hash for entry in entries]


def test_ready_hashes_are_checked_without_hashing() -> None:
    """Hashes of the highest cost, all of which take an hour to verify, are taken at once."""
    password_hash = BCRYPT.replace("$04$", "$16$")

    entries = check(*(Row(number, f"user{number}", {"password_hash": password_hash}) for number in range(1000)))

    assert 1000 == len(entries)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param([], "line 3: an entry must be keys with values", id="list"),
        pytest.param("alice", "line 3: an entry must be keys with values", id="text"),
        pytest.param(None, "line 3: an entry must be keys with values", id="null"),
        pytest.param({}, "line 3: the entry needs a username", id="no-username"),
        pytest.param({"username": 7}, "line 3: the entry needs a username", id="number-as-username"),
        pytest.param({"username": True}, "line 3: the entry needs a username", id="boolean-as-username"),
    ],
)
def test_row_is_refused_with_its_line_when_it_names_nobody(fields: object, expected: str) -> None:
    """Without a name, the line must do."""
    with pytest.raises(SeedError) as caught:
        check(Row(3, None, fields))

    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"pasword": "x"}, "there is no key 'pasword'", id="unknown-key"),
        pytest.param({"server_data": {}, "serverData": {}}, "server_data is there twice", id="both-spellings"),
        pytest.param({"password": 123456789012}, "password must be text", id="number-as-password"),
        pytest.param({"password": True}, "password must be text", id="boolean-as-password"),
        pytest.param({"password": [PASSWORD]}, "password must be text", id="list-as-password"),
        pytest.param({"password": ""}, "the password needs at least 12", id="empty-password"),
        pytest.param({"password": "elevenchars"}, "the password needs at least 12", id="short-password"),
        pytest.param({"password": "x" * 73}, "the password may have at most 72 bytes", id="long-password"),
        pytest.param({"password": "x" * 12 + "\0"}, "the password may have at most 72 bytes", id="nul-in-password"),
        pytest.param({"password": "x" * 12 + "\ud800"}, "the password may have at most", id="surrogate-in-password"),
        pytest.param({"password": "AliceInWonderland"}, "the password is the username", id="username-as-password"),
        pytest.param({"password": "password1234"}, "the password is one that everybody", id="common-password"),
        pytest.param({"password": BCRYPT}, "the password is a bcrypt hash", id="hash-as-password"),
        pytest.param({"password": SAMPLE}, "the password is a hash of deepstream", id="deepstreams-hash-as-password"),
        pytest.param({"password": PASSWORD, "password_hash": BCRYPT}, "say password or password_hash", id="both"),
        pytest.param({"password_hash": "x"}, "the password hash is not bcrypt", id="no-hash"),
        pytest.param({"password_hash": BCRYPT + "\n"}, "the password hash is not bcrypt", id="hash-and-line-break"),
        pytest.param({"password_hash": BCRYPT.replace("2b", "2x")}, "the password hash is not bcrypt", id="2x"),
        pytest.param({"password_hash": BCRYPT.replace("e", "f")}, "the password hash is not bcrypt", id="bad-salt"),
        pytest.param({"password_hash": "$deepstream$md5$1$32$x"}, "the password hash is not", id="bad-legacy-hash"),
        pytest.param({"server_data": []}, "server_data must be a mapping", id="list-as-server-data"),
        pytest.param({"client_data": "{}"}, "client_data must be a mapping", id="text-as-client-data"),
        pytest.param({"server_data": {"sid": "x"}}, "server_data may not hold sid", id="reserved-key"),
        pytest.param({"client_data": {"a": "x" * 2048}}, "server_data and client_data take", id="large-data"),
        pytest.param({"client_data": {"a": float("nan")}}, "client_data is not JSON", id="nan"),
        pytest.param({"client_data": {"a": "\ud800"}}, "client_data is not JSON", id="surrogate"),
        pytest.param({"roles": "editor"}, "roles must be a list", id="text-as-roles"),
        pytest.param({"roles": ["editor", 7]}, "each of the roles must be text", id="number-as-role"),
        pytest.param({"roles": ["editor,", "admin"]}, "the role 'editor,' holds a comma", id="comma"),
        pytest.param({"roles": [""]}, "each of the roles must be text", id="empty-role"),
        pytest.param({"roles": ["editor", "editor"]}, "each of the roles must be text", id="role-twice"),
        pytest.param({"server_data": {"roles": "subeditor"}}, "each of the roles must be text", id="text-in-data"),
        pytest.param({"roles": [], "server_data": {"roles": []}}, "roles are there twice", id="roles-twice"),
        pytest.param({"disabled": "maybe"}, "disabled must be true or false", id="text-as-disabled"),
        pytest.param({"disabled": 1}, "disabled must be true or false", id="number-as-disabled"),
    ],
)
def test_row_is_refused_with_line_and_user_when_it_breaks_a_rule(fields: dict[str, Any], expected: str) -> None:
    """One line names the row, the user and the reason."""
    with pytest.raises(SeedError) as caught:
        check(Row(1, "bob", {}), Row(3, None, {"username": "aliceinwonderland", **fields}))

    assert str(caught.value).startswith(f"line 3, user 'aliceinwonderland': {expected}")


@pytest.mark.parametrize(
    "username",
    [
        pytest.param("", id="empty"),
        pytest.param(" alice", id="blank"),
        pytest.param("al\x1b[2Jice", id="escape-sequence"),
        pytest.param("al\u202eice", id="bidi"),
        pytest.param("\ud800", id="surrogate"),
        pytest.param("x" * 100_000, id="long"),
        pytest.param("OPEN", id="reserved"),
    ],
)
def test_row_is_refused_when_nobody_can_have_the_name(username: str) -> None:
    """A bad name is reported in a way that a terminal can take."""
    with pytest.raises(SeedError) as caught:
        check(Row(1, username, {}))

    complaint = str(caught.value)
    assert complaint.startswith("line 1, user ")
    assert complaint.isprintable()
    assert len(complaint) < 500


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"password": "hunter2"}, id="short"),
        pytest.param({"password": "hunter2" * 20}, id="long"),
        pytest.param({"password_hash": "hunter2"}, id="hash"),
        pytest.param({"password": "hunter2-is-mine", "disabled": "no"}, id="other-key"),
    ],
)
def test_refusal_never_holds_the_password(fields: dict[str, Any]) -> None:
    """Neither the text of the error nor that of an entry shows a secret."""
    with pytest.raises(SeedError) as caught:
        check(Row(1, "alice", fields))

    assert "hunter2" not in str(caught.value)


def test_repr_of_an_entry_hides_secrets() -> None:
    """An entry that ends up in a log shows no password."""
    entry = Entry(line=1, username="alice", password="hunter2", password_hash="hunter3")

    assert "hunter" not in repr(entry)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param("alice", "alice", id="same"),
        pytest.param("alice", "ALICE", id="other-case"),
        pytest.param("Straße", "STRASSE", id="case-folding"),
        pytest.param("café", "cafe\u0301", id="composition"),
    ],
)
def test_user_is_refused_when_the_file_has_them_already(first: str, second: str) -> None:
    """Two entries of one user, in any spelling, are a mistake; both lines are named."""
    with pytest.raises(SeedError) as caught:
        check(Row(2, first, {}), Row(5, second, {}))

    assert str(caught.value).startswith("line 5, user ")
    assert str(caught.value).endswith("this user is on line 2 already")


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param(DeepstreamHash(algorithm="md5", iterations=100, key_length=16), id="other-length"),
        pytest.param(DeepstreamHash(algorithm="no-such", iterations=100, key_length=32), id="unknown-hash"),
        pytest.param(DeepstreamHash(algorithm="shake_128", iterations=100, key_length=32), id="hash-without-length"),
        pytest.param(DeepstreamHash(algorithm="md5", iterations=0, key_length=32), id="no-iterations"),
        pytest.param(DeepstreamHash(algorithm="md5", iterations=100, key_length=-1), id="negative-length"),
    ],
)
def test_row_is_refused_when_deepstream_cannot_have_made_the_password(parameters: DeepstreamHash) -> None:
    """Wrong parameters come out before anything is written, not at the first login."""
    with pytest.raises(SeedError) as caught:
        check(Row(4, "userA", {"password": SAMPLE}), deepstream_hash=parameters)

    assert str(caught.value).startswith("line 4, user 'userA': this is no password hash that deepstream made")


@pytest.mark.parametrize(
    ("server_data", "roles", "expected"),
    [
        pytest.param(None, None, None, id="nothing"),
        pytest.param({"a": 1}, None, {"a": 1}, id="data"),
        pytest.param(None, ["b"], {"roles": ["b"]}, id="roles"),
        pytest.param(None, [], {"roles": []}, id="no-roles"),
        pytest.param({"a": 1}, ["b"], {"a": 1, "roles": ["b"]}, id="both"),
    ],
)
def test_with_roles_puts_roles_into_the_data(
    server_data: dict[str, Any] | None, roles: list[str] | None, expected: dict[str, Any] | None
) -> None:
    """What was not said stays unsaid."""
    merged = with_roles(server_data, roles)

    assert expected == merged


def test_with_roles_raises_when_they_are_there_twice() -> None:
    """Which of the two is meant, nobody can know."""
    with pytest.raises(UserDataError):
        with_roles({"roles": ["a"]}, ["a"])


# What a file can say at all, and often what one should say.
KEYS = st.sampled_from(["username", "password", "password_hash", "serverData", "client_data", "roles", "disabled"])
TEXTS = st.sampled_from(["alice", PASSWORD, BCRYPT, SAMPLE, "yes", "*", "<<", "!!int"]) | st.text(max_size=8)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | TEXTS, inner, max_size=4),
    max_leaves=12,
)
USERS = st.dictionaries(KEYS, TREES, max_size=5)


@pytest.mark.parametrize(
    ("file_format", "encode"),
    [
        pytest.param("json", lambda tree: json.dumps(tree, default=str), id="json"),
        pytest.param("yaml", lambda tree: yaml.safe_dump(tree, allow_unicode=True), id="yaml"),
    ],
)
@given(
    deepstream_hash=st.sampled_from([None, MD5]),
    tree=st.lists(USERS, max_size=3) | st.dictionaries(TEXTS, USERS, max_size=3) | TREES,
)
def test_any_tree_gives_entries_or_says_why_not(
    file_format: SeedFormat, encode: Callable[[Any], str], deepstream_hash: DeepstreamHash | None, tree: Any
) -> None:
    """Values of any type, anywhere, are users that can be stored, or one line."""
    entries: list[Entry] = []
    complaint = ""

    try:
        entries = check(*read_rows(encode(tree), file_format), deepstream_hash=deepstream_hash)
    except SeedError as exc:
        complaint = str(exc)

    assert complaint.isprintable()
    assert all(is_username(entry.username) for entry in entries)
