import math
import unicodedata
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_ds.errors import UserDataError
from tornado_ds.users import (
    MAX_DATA_BYTES,
    RESERVED_CLIENT_DATA,
    RESERVED_SERVER_DATA,
    User,
    check_data,
    check_username,
    is_username,
    username_key,
)


def nested(depth: int) -> dict[str, Any]:
    """An object with *depth* levels of objects."""
    data: dict[str, Any] = {}
    for _ in range(depth - 1):
        data = {"a": data}
    return data


def is_encodable(value: object) -> bool:
    """True if a token can hold *value*."""
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a", id="one-letter"),
        pytest.param("a" * 128, id="longest"),
        pytest.param("Wolfram Hempel", id="blank-inside"),
        pytest.param("o'brien+test@example.com", id="mail-address"),
        pytest.param("<script>alert(1)</script>", id="markup"),
        pytest.param("Jürgen", id="umlaut"),
        pytest.param("Ju\u0308rgen", id="combining-umlaut"),
        pytest.param("山田太郎", id="han"),
        pytest.param("عبد الله", id="right-to-left-letters"),
        pytest.param("नमस्ते", id="devanagari-marks"),
        pytest.param("😀", id="astral"),
        pytest.param("open", id="not-quite-reserved"),
        pytest.param("0", id="digit"),
    ],
)
def test_check_username_returns_the_name_when_everybody_can_see_it(name: str) -> None:
    """Names of all scripts are taken exactly as they are spelled."""
    assert name == check_username(name)
    assert is_username(name)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="empty"),
        pytest.param(" ", id="blank"),
        pytest.param(" alice", id="leading-blank"),
        pytest.param("alice ", id="trailing-blank"),
        pytest.param("\u3000alice", id="leading-ideographic-space"),
        pytest.param("alice\xa0", id="trailing-no-break-space"),
        pytest.param("a" * 129, id="too-long"),
        pytest.param("OPEN", id="deepstream-anonymous"),
        pytest.param("a\nb", id="line-feed"),
        pytest.param("a\rb", id="carriage-return"),
        pytest.param("a\tb", id="tab"),
        pytest.param("a\x1b[31mb", id="terminal-escape"),
        pytest.param("a\0b", id="nul"),
        pytest.param("a\x7fb", id="delete"),
        pytest.param("a\x85b", id="next-line"),
        pytest.param("a\u2028b", id="line-separator"),
        pytest.param("a\u2029b", id="paragraph-separator"),
        pytest.param("a\u202eb", id="bidi-override"),
        pytest.param("a\u2066b", id="bidi-isolate"),
        pytest.param("a\u200bb", id="zero-width-space"),
        pytest.param("a\u200db", id="zero-width-joiner"),
        pytest.param("a\u2060b", id="word-joiner"),
        pytest.param("\ufeffa", id="byte-order-mark"),
        pytest.param("a\u00adb", id="soft-hyphen"),
        pytest.param("a\U000e0041", id="tag-letter"),
        pytest.param("a\ufe0f", id="variation-selector"),
        pytest.param("a\U000e0100", id="late-variation-selector"),
        pytest.param("a\u180b", id="mongolian-variation-selector"),
        pytest.param("a\u034f", id="combining-grapheme-joiner"),
        pytest.param("a\u115f", id="hangul-filler"),
        pytest.param("\u3164", id="hangul-filler-alone"),
        pytest.param("\uffa0", id="halfwidth-hangul-filler"),
        pytest.param("\u2800", id="braille-blank"),
        pytest.param("a\ud800", id="surrogate"),
        pytest.param("a\ue000", id="private-use"),
        pytest.param("a\u0378", id="unassigned"),
        pytest.param("a\uffff", id="noncharacter"),
    ],
)
def test_check_username_refuses_a_name_when_it_cannot_be_seen_or_is_reserved(name: str) -> None:
    """What looks like another name, or like none, is refused in words that fit on one printable line."""
    with pytest.raises(UserDataError) as caught:
        check_username(name)

    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()
    assert not is_username(name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("Alice", "aLICE", id="case"),
        pytest.param("J\u00fcrgen", "Ju\u0308rgen", id="composed-and-not"),
        pytest.param("straße", "STRASSE", id="sharp-s"),
        pytest.param("ﬁnn", "finn", id="ligature"),
        pytest.param("\uff21lice", "alice", id="full-width"),
        pytest.param("\u212angstrom", "kngstrom", id="kelvin-sign"),
        pytest.param("ΟΔΟΣ", "οδος", id="final-sigma"),
        pytest.param("x²", "x2", id="superscript"),
        pytest.param("a\xa0b", "a b", id="no-break-space"),
    ],
)
def test_username_key_is_the_same_when_the_names_are_equivalent(one: str, other: str) -> None:
    """Spellings that people take for each other are one user."""
    assert username_key(one) == username_key(other)


def test_username_key_differs_when_the_letters_are_of_other_scripts() -> None:
    """NFKC does not mix scripts: a Cyrillic a is another letter."""
    assert username_key("alice") != username_key("\u0430lice")


@given(name=st.text(max_size=140))
def test_username_key_ignores_how_the_letters_are_composed(name: str) -> None:
    """Whatever form a keyboard or a file system makes of a name, it is the same user."""
    keys = {username_key(unicodedata.normalize(form, name)) for form in ("NFC", "NFD", "NFKC", "NFKD")}

    assert {username_key(name)} == keys


@given(name=st.text(st.characters(codec=None), max_size=140))
def test_check_username_says_no_in_its_own_error_whatever_the_text(name: str) -> None:
    """A name is either accepted as it is or refused, never anything else."""
    if is_username(name):
        assert name == check_username(name)
        assert name.encode()
    else:
        with pytest.raises(UserDataError):
            check_username(name)


def test_user_shows_no_hash_when_it_is_printed() -> None:
    """A user in a log line or a traceback gives nothing away."""
    assert "$2b$" not in repr(User("alice", "$2b$04$abc"))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({}, id="empty"),
        pytest.param({"roles": ["admin"], "limits": {"rate": 1.5, "burst": None}, "trial": False}, id="usual"),
        pytest.param({"": "", "Grüße": "😀"}, id="any-text"),
        pytest.param({"n": 2**63}, id="64-bit"),
        pytest.param({"username": "x", "token": "y"}, id="reserved-elsewhere"),
    ],
)
def test_check_data_accepts_what_json_can_say(data: dict[str, Any]) -> None:
    """Data of any JSON kind may travel in a token."""
    check_data(data, {})


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({"a": math.nan}, id="nan"),
        pytest.param({"a": [math.inf]}, id="infinity"),
        pytest.param({"a": {1, 2}}, id="set"),
        pytest.param({"a": b"x"}, id="bytes"),
        pytest.param({"a": (1, 2)}, id="tuple"),
        pytest.param({1: "a"}, id="number-as-key"),
        pytest.param({"a": 2**64}, id="over-64-bit"),
        pytest.param({"a": "\ud800"}, id="surrogate"),
        pytest.param({"\ud800": 1}, id="surrogate-in-key"),
        pytest.param(nested(2000), id="too-deep"),
        pytest.param({"a": "x" * MAX_DATA_BYTES}, id="too-large"),
        *(pytest.param({key: 1}, id=key) for key in sorted(RESERVED_SERVER_DATA)),
    ],
)
def test_check_data_refuses_server_data_when_they_cannot_travel(data: dict[Any, Any]) -> None:
    """What would change on its way to a Valve rule, or hide what the server says, is refused."""
    with pytest.raises(UserDataError, match="server_data"):
        check_data(data, {})


@pytest.mark.parametrize("roles", [pytest.param([], id="none"), pytest.param(["editor", "head of Büro 1"], id="two")])
def test_check_data_accepts_roles_when_they_are_a_list_of_words(roles: list[str]) -> None:
    """What rules can tell apart may be a role, and nobody needs one."""
    check_data({"roles": roles}, {})


@pytest.mark.parametrize(
    "roles",
    [
        pytest.param("subeditor", id="text"),
        pytest.param(None, id="null"),
        pytest.param({"editor": True}, id="mapping"),
        pytest.param(["editor", 7], id="number"),
        pytest.param([["editor"]], id="list-in-list"),
        pytest.param([""], id="empty"),
        pytest.param([" "], id="blank"),
        pytest.param(["editor "], id="blank-at-the-end"),
        pytest.param(["edi\u200btor"], id="invisible"),
        pytest.param(["edi\x1b[2Jtor"], id="escape-sequence"),
        pytest.param(["editor", "reader", "editor"], id="twice"),
    ],
)
def test_check_data_refuses_roles_when_they_are_no_list_of_words(roles: object) -> None:
    """A rule that asks whether the text `subeditor` includes `editor` would say yes."""
    with pytest.raises(UserDataError, match=r'each of the roles must be text .*: "roles": \["editor", "admin"\]'):
        check_data({"roles": roles}, {})


@pytest.mark.parametrize("key", sorted(RESERVED_CLIENT_DATA))
def test_check_data_refuses_client_data_when_the_server_sets_them(key: str) -> None:
    """A user cannot be given a second username, expiry or token."""
    with pytest.raises(UserDataError, match=key):
        check_data({}, {key: 1})


def test_check_data_counts_both_to_the_byte_when_they_near_two_kibibytes() -> None:
    """2048 bytes of JSON pass and 2049 do not, wherever they stand."""
    server_data, client_data = {"a": "ü" * 500}, {"b": ""}
    rest = MAX_DATA_BYTES - len(orjson.dumps(server_data)) - len(orjson.dumps(client_data))

    check_data(server_data, {"b": "x" * rest})

    with pytest.raises(UserDataError, match="2049 bytes"):
        check_data(server_data, {"b": "x" * (rest + 1)})


def test_check_data_refuses_data_when_they_are_one_level_too_deep_for_a_token() -> None:
    """The deepest data that can be encoded where they end up, one level down, are the deepest that pass."""
    deepest = next(depth for depth in range(200, 400) if not is_encodable({"server_data": nested(depth + 1)}))

    check_data(nested(deepest), {})

    with pytest.raises(UserDataError):
        check_data(nested(deepest + 1), {})
