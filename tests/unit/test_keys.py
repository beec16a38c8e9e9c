"""One key, and which of several signs."""

from dataclasses import replace

import pytest

from tornado_ds.keys import Algorithm, Key, KeyRing, key_from_jwk, new_jwk

PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "k"}


def ring_of(key: Key, *signs_from: int) -> KeyRing:
    """Keys that begin to sign at these moments, in the order in which they were added."""
    return KeyRing([replace(key, kid=str(number), signs_from=moment) for number, moment in enumerate(signs_from)])


def test_public_jwk_tells_the_public_half_and_nothing_else(key_ring: KeyRing, algorithm: Algorithm) -> None:
    """The key set is empty for a shared secret, and without private members for the rest."""
    jwks = key_ring.jwks()["keys"]

    if algorithm == "HS256":
        assert jwks == []
        return
    [jwk] = jwks
    assert not PRIVATE_MEMBERS & jwk.keys()
    assert (key_ring.oldest_key.kid, algorithm, "sig") == (jwk["kid"], jwk["alg"], jwk["use"])


def test_key_shows_no_secret_when_it_is_printed() -> None:
    """A key in a log line or a traceback gives nothing away."""
    jwk = new_jwk("HS256", now=1, signs_from=1)

    shown = repr(KeyRing([key_from_jwk(jwk)]))

    assert jwk["k"] not in shown
    assert "_private" not in shown


def test_key_equals_itself_when_it_was_read_again(algorithm: Algorithm) -> None:
    """Reading a file twice changes nothing; another key under the same name is another key."""
    jwk = new_jwk(algorithm, now=1, signs_from=1)
    other = {**new_jwk(algorithm, now=1, signs_from=1), "kid": jwk["kid"]}

    assert key_from_jwk(jwk) == key_from_jwk(dict(reversed(jwk.items())))
    assert key_from_jwk(jwk) != key_from_jwk(other)


@pytest.mark.parametrize(
    ("expected", "signs_from", "now"),
    [
        pytest.param("0", [10], 10, id="only-one"),
        pytest.param("0", [10, 20], 19.999, id="newer-waits"),
        pytest.param("1", [10, 20], 20, id="newer-has-begun"),
        pytest.param("1", [10, 20, 30], 29, id="newest-waits"),
        pytest.param("2", [10, 30, 20], 25, id="newest-overtakes"),
        pytest.param("2", [10, 30, 20], 35, id="overtaken-never-signs"),
        pytest.param("0", [10, 20], 5, id="clock-is-behind-all"),
    ],
)
def test_signing_key_at_returns_the_newest_key_whose_time_has_come(
    hs256_key_ring: KeyRing, expected: str, signs_from: list[int], now: float
) -> None:
    """Exactly one key signs at any moment, and the same one on all nodes."""
    ring = ring_of(hs256_key_ring.oldest_key, *signs_from)

    assert expected == ring.signing_key_at(now).kid


def test_signs_until_returns_when_the_first_newer_key_takes_over(hs256_key_ring: KeyRing) -> None:
    """What a key has signed was issued before that."""
    ring = ring_of(hs256_key_ring.oldest_key, 10, 30, 20)

    assert [20, 20, None] == [ring.signs_until(key) for key in ring.keys]
