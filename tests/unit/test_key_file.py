"""The file of keys: made once, shared by many, never damaged by us, never believed when it is."""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tornado_ds.errors import KeyRingError
from tornado_ds.key_file import add_key, open_key_ring, read_key_ring, read_keys, retire_key
from tornado_ds.keys import Algorithm, Key, KeyRing, new_jwk


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """Where keys are to be; neither it nor its folder is there."""
    return tmp_path / "var" / "keys.json"


def write(path: Path, content: Any) -> None:
    """Put a file there that only its owner can read."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    path.chmod(0o600)


def test_open_key_ring_makes_a_private_file_at_the_first_start(key_file: Path, algorithm: Algorithm) -> None:
    """Nobody but the owner can read the keys, and they sign at once."""
    ring = open_key_ring(key_file, algorithm, now=7)

    assert key_file.stat().st_mode & 0o777 == 0o600
    assert key_file.parent.stat().st_mode & 0o777 == 0o700
    assert {0o600} == {file.stat().st_mode & 0o777 for file in key_file.parent.iterdir()}
    assert [(algorithm, 7, 7, None)] == [
        (key.algorithm, key.created_at, key.signs_from, key.retired_at) for key in ring.keys
    ]


def test_open_key_ring_returns_the_same_keys_when_opened_again(key_file: Path, algorithm: Algorithm) -> None:
    """What was signed before a restart is verified after it."""
    before = open_key_ring(key_file, algorithm, now=7)
    content = key_file.read_bytes()

    after = open_key_ring(key_file, algorithm, now=8)

    signature = before.oldest_key.sign(b"message")
    assert after.oldest_key.verify(b"message", signature)
    assert not after.oldest_key.verify(b"massage", signature)
    assert before == after
    assert content == key_file.read_bytes()


def test_key_file_stays_with_its_owner_when_it_is_changed(key_file: Path) -> None:
    """A server that is not root reads the keys that a command of root has added and retired."""
    old = open_key_ring(key_file, "HS256", now=1).oldest_key
    # Only root can give a file to somebody else; others to a group of theirs.
    owner = (1, 1) if os.geteuid() == 0 else (os.geteuid(), max(os.getgroups(), default=os.getegid()))
    os.chown(key_file, *owner)

    add_key(key_file, "HS256", now=2, delay=0)
    retire_key(key_file, old.kid, "HS256", now=2)

    found = key_file.stat()
    assert (*owner, 0o600) == (found.st_uid, found.st_gid, found.st_mode & 0o777)
    assert [2, None] == [key.retired_at for key in read_keys(key_file)]


def test_add_key_waits_before_it_signs_while_the_older_one_still_verifies(key_file: Path, algorithm: Algorithm) -> None:
    """Every node knows a key before it gets a token of it, and a rotation throws nobody out."""
    old = open_key_ring(key_file, algorithm, now=1).oldest_key

    new = add_key(key_file, algorithm, now=2, delay=10)

    ring = open_key_ring(key_file, algorithm, now=3)
    assert [old, new] == ring.keys
    assert [old, old, new] == [ring.signing_key_at(now) for now in (2, 11.9, 12)]
    assert ring.by_header()[old.header].verify(b"message", old.sign(b"message"))
    assert not ring.by_header()[old.header].verify(b"message", new.sign(b"message"))


def test_add_key_signs_at_once_when_it_is_the_first(key_file: Path) -> None:
    """Where nothing was signed before, nobody has to hear of it first."""
    new = add_key(key_file, "HS256", now=2)

    assert new.signs_from == 2
    assert KeyRing([new]) == open_key_ring(key_file, "HS256", now=3)


def test_retire_key_keeps_it_in_the_file_for_nothing(key_file: Path, algorithm: Algorithm) -> None:
    """A retired key verifies no more, and can still be listed."""
    old = open_key_ring(key_file, algorithm, now=1).oldest_key
    new = add_key(key_file, algorithm, now=2, delay=0)

    retired = retire_key(key_file, old.kid, algorithm, now=3)

    assert old == retired
    assert [new] == open_key_ring(key_file, algorithm, now=3).keys
    assert [(old.kid, 3), (new.kid, None)] == [(key.kid, key.retired_at) for key in read_keys(key_file)]


def test_retire_key_takes_one_that_does_not_sign_yet(key_file: Path) -> None:
    """A rotation can be taken back while nobody has a token of the new key."""
    old = open_key_ring(key_file, "HS256", now=1).oldest_key
    new = add_key(key_file, "HS256", now=2, delay=10)

    retire_key(key_file, new.kid, "HS256", now=3)

    assert [old] == read_key_ring(key_file, "HS256").keys


def test_retire_key_takes_any_key_of_another_algorithm(key_file: Path) -> None:
    """They are of no use to the server as it is configured."""
    old = open_key_ring(key_file, "HS256", now=1).oldest_key

    retire_key(key_file, old.kid, "EdDSA", now=2)

    assert [2] == [key.retired_at for key in read_keys(key_file)]


@pytest.mark.parametrize(
    ("reason", "kid_of"),
    [
        pytest.param("there is no key 'nobody'", lambda retired, old, new: "nobody", id="unknown"),
        pytest.param("there is no key ''", lambda retired, old, new: "", id="empty"),
        pytest.param("was retired before", lambda retired, old, new: retired.kid, id="twice"),
        pytest.param("`keys rotate` first", lambda retired, old, new: old.kid, id="signing"),
    ],
)
def test_retire_key_changes_nothing_when_it_refuses(
    key_file: Path, reason: str, kid_of: Callable[[Key, Key, Key], str]
) -> None:
    """There is always a key that signs, and each refusal says why in one line."""
    retired = open_key_ring(key_file, "HS256", now=1).oldest_key
    old = add_key(key_file, "HS256", now=2, delay=0)
    retire_key(key_file, retired.kid, "HS256", now=3)
    new = add_key(key_file, "HS256", now=4, delay=10)
    content = key_file.read_bytes()

    with pytest.raises(KeyRingError, match=reason) as caught:
        retire_key(key_file, kid_of(retired, old, new), "HS256", now=5)

    assert "\n" not in str(caught.value)
    assert content == key_file.read_bytes()


def test_open_key_ring_makes_a_new_key_when_the_algorithm_changes(key_file: Path) -> None:
    """One algorithm per deployment: keys of another one verify nothing, but are kept."""
    old = open_key_ring(key_file, "HS256", now=1).oldest_key

    ring = open_key_ring(key_file, "EdDSA", now=2)

    assert [key.algorithm for key in ring.keys] == ["EdDSA"]
    assert old.header not in ring.by_header()
    assert [key.algorithm for key in read_keys(key_file)] == ["HS256", "EdDSA"]


def test_open_key_ring_reads_a_file_of_the_first_version(key_file: Path) -> None:
    """Its keys have no `signs_from`: they signed from their beginning, the newest of them last."""
    jwks = [new_jwk("HS256", now=moment, signs_from=0) for moment in (5, 7)]
    write(key_file, {"keys": [{name: value for name, value in jwk.items() if name != "signs_from"} for jwk in jwks]})

    ring = open_key_ring(key_file, "HS256", now=8)

    assert [5, 7] == [key.signs_from for key in ring.keys]
    assert jwks[1]["kid"] == ring.signing_key_at(8).kid


def test_open_key_ring_makes_one_key_when_several_start_at_once(key_file: Path) -> None:
    """Nodes whose first start is at the same moment agree on the key."""
    with ThreadPoolExecutor(8) as pool:
        rings = list(pool.map(lambda _: open_key_ring(key_file, "HS256", now=1), range(8)))

    assert [rings[0].oldest_key.kid] == [key.kid for key in read_keys(key_file)]
    assert all(rings[0] == ring for ring in rings)


def test_no_key_is_lost_when_several_commands_write_at_once(key_file: Path) -> None:
    """Each reads what the others have written before it."""
    first = open_key_ring(key_file, "HS256", now=1).oldest_key
    old = add_key(key_file, "HS256", now=2, delay=0)

    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(lambda _: add_key(key_file, "HS256", now=3).kid, range(8)))
        pool.submit(retire_key, key_file, first.kid, "HS256", now=3).result()

    stored = {key.kid: key.retired_at for key in read_keys(key_file)}
    assert stored == {first.kid: 3, old.kid: None} | dict.fromkeys(added)


def test_add_key_writes_over_a_draft_that_a_crash_has_left(key_file: Path) -> None:
    """Whoever was killed while writing stops nobody after it."""
    old = open_key_ring(key_file, "HS256", now=1).oldest_key
    (key_file.parent / ".keys.json.draft").write_bytes(b"x" * 10_000)

    new = add_key(key_file, "HS256", now=2)

    assert [old, new] == read_keys(key_file)
    assert not (key_file.parent / ".keys.json.draft").exists()


def test_read_key_ring_makes_nothing_when_the_file_is_gone(key_file: Path) -> None:
    """A running server keeps what it has, and does not put another key in its place."""
    key_file.parent.mkdir()

    with pytest.raises(KeyRingError, match=r"keys\.json is gone"):
        read_key_ring(key_file, "HS256")

    assert [] == list(key_file.parent.iterdir())


def test_read_key_ring_fails_when_all_keys_are_for_other_algorithms(key_file: Path) -> None:
    """A ring is never empty."""
    open_key_ring(key_file, "HS256", now=1)

    with pytest.raises(KeyRingError, match="no key for EdDSA"):
        read_key_ring(key_file, "EdDSA")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o777])
def test_open_key_ring_refuses_a_file_when_others_can_read_it(key_file: Path, mode: int) -> None:
    """A key that others may have read is not used."""
    open_key_ring(key_file, "HS256", now=1)
    key_file.chmod(mode)

    with pytest.raises(KeyRingError, match="chmod 600"):
        open_key_ring(key_file, "HS256", now=2)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xfe", id="binary"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="array"),
        pytest.param(b"{}", id="no-keys"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"keys": {}}', id="keys-not-an-array"),
        pytest.param(b'{"keys": [1]}', id="key-not-an-object"),
        pytest.param(b'{"keys": [{}]}', id="empty-key"),
        pytest.param(b'{"keys": [{"alg": "none"}]}', id="unknown-algorithm"),
        pytest.param(b'{"keys": [{"alg": ["HS256"]}]}', id="algorithm-not-text"),
        pytest.param(
            b'{"keys": [{"alg": "HS256", "kty": "oct", "kid": "1", "created_at": 1, "retired_at": null}]}',
            id="no-secret",
        ),
        pytest.param(
            b'{"keys": [{"alg": "HS256", "kty": "oct", "k": "", "kid": "1", "created_at": 1, "retired_at": null}]}',
            id="empty-secret",
        ),
        pytest.param(
            b'{"keys": [{"alg": "HS256", "kty": "oct", "k": "AAAA", "kid": "1", "created_at": 1, "retired_at": null}]}',
            id="short-secret",
        ),
        pytest.param(
            b'{"keys": [{"alg": "HS256", "kty": "oct", "k": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "1",'
            b' "created_at": 1, "retired_at": null, "signs_from": "soon"}]}',
            id="time-that-is-none",
        ),
        pytest.param(
            b'{"keys": [{"alg": "HS256", "kty": "oct", "k": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "1",'
            b' "created_at": 253402300800, "retired_at": null}]}',
            id="year-10000",
        ),
        pytest.param(
            b'{"keys": [{"alg": "EdDSA", "kty": "oct", "k": "AAAA", "kid": "1", "created_at": 1, "retired_at": null}]}',
            id="key-of-another-algorithm",
        ),
        pytest.param(
            b'{"keys": [{"alg": "EdDSA", "kty": "OKP", "crv": "Ed25519", "kid": "1", "created_at": 1,'
            b' "retired_at": null, "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}',
            id="public-half-only",
        ),
    ],
)
def test_open_key_ring_refuses_a_file_when_it_holds_something_else(key_file: Path, content: bytes) -> None:
    """A damaged file is reported in one line and left as it is, never overwritten with a new key."""
    key_file.parent.mkdir()
    key_file.write_bytes(content)
    key_file.chmod(0o600)

    with pytest.raises(KeyRingError, match=r"keys\.json") as caught:
        open_key_ring(key_file, "HS256", now=1)

    assert "\n" not in str(caught.value)
    assert content == key_file.read_bytes()


def test_open_key_ring_says_so_when_the_folder_cannot_be_made(tmp_path: Path) -> None:
    """A data folder that is a file is reported in one line."""
    (tmp_path / "var").write_text("")

    with pytest.raises(KeyRingError, match=r"keys\.json"):
        open_key_ring(tmp_path / "var" / "keys.json", "HS256", now=1)


def test_add_key_says_so_when_the_folder_cannot_be_written(tmp_path: Path) -> None:
    """A lock that cannot be made is reported in one line."""
    (tmp_path / ".keys.json.lock").mkdir()

    with pytest.raises(KeyRingError, match=r"keys\.json cannot be written"):
        add_key(tmp_path / "keys.json", "HS256", now=1)


@given(data=st.data(), value=st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_read_key_ring_raises_its_own_error_when_a_member_is_spoiled(
    key_file: Path, data: st.DataObject, value: Any
) -> None:
    """Whatever stands in the file, a server that follows it goes on."""
    algorithm: Algorithm = data.draw(st.sampled_from(["HS256", "EdDSA", "ES256"]))
    jwk = new_jwk(algorithm, now=1, signs_from=1)
    member = data.draw(st.sampled_from(sorted(jwk)))
    write(key_file, {"keys": [{**jwk, member: value}]})

    with suppress(KeyRingError):
        assert len(read_key_ring(key_file, jwk["alg"]).keys) == 1
