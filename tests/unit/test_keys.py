import json
from pathlib import Path

import pytest

from tornado_ds.errors import KeyRingError
from tornado_ds.keys import Algorithm, KeyRing, add_key, open_key_ring, read_keys

PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "k"}


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """Where keys are to be; neither it nor its folder is there."""
    return tmp_path / "var" / "keys.json"


def retire(path: Path, kid: str) -> None:
    """What an operator's command does to a key."""
    content = json.loads(path.read_text())
    for jwk in content["keys"]:
        if jwk["kid"] == kid:
            jwk["retired_at"] = 2
    path.write_text(json.dumps(content))


def test_open_key_ring_makes_a_private_file_at_the_first_start(key_file: Path, algorithm: Algorithm) -> None:
    """Nobody but the owner can read the keys, and nothing else is left in the folder."""
    ring = open_key_ring(key_file, algorithm, now=7)

    assert key_file.stat().st_mode & 0o777 == 0o600
    assert key_file.parent.stat().st_mode & 0o777 == 0o700
    assert [key_file] == list(key_file.parent.iterdir())
    assert [(algorithm, 7, None)] == [(key.algorithm, key.created_at, key.retired_at) for key in ring.keys]


def test_open_key_ring_returns_the_same_keys_when_opened_again(key_file: Path, algorithm: Algorithm) -> None:
    """What was signed before a restart is verified after it."""
    before = open_key_ring(key_file, algorithm, now=7)
    content = key_file.read_bytes()

    after = open_key_ring(key_file, algorithm, now=8)

    signature = before.signing_key.sign(b"message")
    assert after.signing_key.verify(b"message", signature)
    assert not after.signing_key.verify(b"massage", signature)
    assert before.signing_key.header == after.signing_key.header
    assert content == key_file.read_bytes()


def test_add_key_signs_from_then_on_while_the_older_one_still_verifies(key_file: Path, algorithm: Algorithm) -> None:
    """A rotation throws nobody out."""
    old = open_key_ring(key_file, algorithm, now=1).signing_key

    new = add_key(key_file, algorithm, now=2)

    ring = open_key_ring(key_file, algorithm, now=3)
    assert [old.kid, new.kid] == [key.kid for key in ring.keys]
    assert new.kid == ring.signing_key.kid
    assert ring.by_header()[old.header].verify(b"message", old.sign(b"message"))
    assert not ring.by_header()[old.header].verify(b"message", new.sign(b"message"))


def test_open_key_ring_leaves_a_key_out_when_it_is_retired(key_file: Path, algorithm: Algorithm) -> None:
    """A retired key stays in the file and counts for nothing."""
    old = open_key_ring(key_file, algorithm, now=1).signing_key
    new = add_key(key_file, algorithm, now=2)
    retire(key_file, old.kid)

    ring = open_key_ring(key_file, algorithm, now=3)

    assert [new.kid] == [key.kid for key in ring.keys]
    assert [old.kid, new.kid] == [key.kid for key in read_keys(key_file)]


def test_open_key_ring_makes_a_new_key_when_the_algorithm_changes(key_file: Path) -> None:
    """One algorithm per deployment: keys of another one verify nothing, but are kept."""
    old = open_key_ring(key_file, "HS256", now=1).signing_key

    ring = open_key_ring(key_file, "EdDSA", now=2)

    assert [key.algorithm for key in ring.keys] == ["EdDSA"]
    assert old.header not in ring.by_header()
    assert [key.algorithm for key in read_keys(key_file)] == ["HS256", "EdDSA"]


def test_public_jwk_tells_the_public_half_and_nothing_else(key_ring: KeyRing, algorithm: Algorithm) -> None:
    """The key set is empty for a shared secret, and without private members for the rest."""
    jwks = key_ring.jwks()["keys"]

    if algorithm == "HS256":
        assert jwks == []
        return
    [jwk] = jwks
    assert not PRIVATE_MEMBERS & jwk.keys()
    assert (key_ring.signing_key.kid, algorithm, "sig") == (jwk["kid"], jwk["alg"], jwk["use"])


def test_key_shows_no_secret_when_it_is_printed(key_file: Path) -> None:
    """A key in a log line or a traceback gives nothing away."""
    ring = open_key_ring(key_file, "HS256", now=1)
    [jwk] = json.loads(key_file.read_text())["keys"]

    assert jwk["k"] not in repr(ring)
    assert "_private" not in repr(ring)


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
