import json
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import ManualClock
from tests.forgeries import Payload, encode, public_keys_as_bytes, sign, sign_with_hmac
from tornado_ds.cookies import SessionCookie
from tornado_ds.errors import ExpiredTokenError, InvalidTokenError, UserDataError
from tornado_ds.key_file import add_key, open_key_ring, read_key_ring
from tornado_ds.keys import Algorithm, KeyRing
from tornado_ds.tokens import MAX_ISSUED_BYTES, MAX_TOKEN_BYTES, Claims, TokenService

Forge = Callable[[Payload], object]


def payload_of(claims: Claims) -> Payload:
    """What an honest token of *claims* holds."""
    return {
        "iss": "tornado_ds",
        "aud": "deepstream",
        "sub": claims.username,
        "sid": claims.sid,
        "ver": claims.version,
        "iat": claims.issued_at,
        "exp": claims.expires_at,
        "server_data": claims.server_data,
        "client_data": claims.client_data,
    }


@pytest.fixture
def service(key_ring: KeyRing, clock: ManualClock) -> TokenService:
    """Tokens of each algorithm in turn."""
    return TokenService(key_ring, clock=clock, issuer="tornado_ds", audience="deepstream")


def test_verify_returns_the_claims_that_were_issued(service: TokenService, claims: Claims) -> None:
    """What goes in comes out, with every algorithm."""
    token = service.issue(claims)

    assert claims == service.verify(token)
    assert token.isascii()


def test_sign_in_these_tests_makes_honest_tokens(service: TokenService, claims: Claims) -> None:
    """The refusals below are for what is forged, not for how it is signed here."""
    assert claims == service.verify(sign(service.keys.oldest_key, payload_of(claims)))


def test_verify_accepts_no_token_when_any_single_bit_is_flipped(service: TokenService, claims: Claims) -> None:
    """Each bit of header, payload and signature counts."""
    token = service.issue(claims).encode()

    for index in range(8 * len(token)):
        flipped = bytearray(token)
        flipped[index // 8] ^= 1 << index % 8
        with pytest.raises(InvalidTokenError):
            service.verify(flipped.decode("latin-1"))


def test_verify_accepts_no_token_when_it_is_cut_or_lengthened(service: TokenService, claims: Claims) -> None:
    """A token is whole or nothing."""
    token = service.issue(claims)

    for end in range(len(token)):
        with pytest.raises(InvalidTokenError):
            service.verify(token[:end])
    for extra in (".", "=", "A", " ", "\n", "\0", ".A", f".{token}"):
        with pytest.raises(InvalidTokenError):
            service.verify(token + extra)
        with pytest.raises(InvalidTokenError):
            service.verify(extra + token)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param({"alg": "none", "typ": "JWT"}, id="none"),
        pytest.param({"alg": "None", "kid": "KID", "typ": "JWT"}, id="none-with-kid"),
        pytest.param({"alg": "", "kid": "KID", "typ": "JWT"}, id="blank"),
        pytest.param({"kid": "KID", "typ": "JWT"}, id="missing"),
        pytest.param({"alg": "ALG", "kid": "KID"}, id="no-type"),
        pytest.param({"kid": "KID", "alg": "ALG", "typ": "JWT"}, id="other-order"),
        pytest.param({"alg": "ALG", "kid": "KID", "typ": "jwt"}, id="type-in-lower-case"),
        pytest.param({"alg": "HS512", "kid": "KID", "typ": "JWT"}, id="stronger-hmac"),
        pytest.param({"alg": "hs256", "kid": "KID", "typ": "JWT"}, id="lower-case"),
        pytest.param({"alg": "ALG", "kid": "", "typ": "JWT"}, id="no-kid"),
        pytest.param({"alg": "ALG", "kid": "../../dev/null", "typ": "JWT"}, id="kid-path"),
        pytest.param({"alg": "ALG", "kid": "' OR 1=1 --", "typ": "JWT"}, id="kid-sql"),
        pytest.param({"alg": "ALG", "kid": ["KID"], "typ": "JWT"}, id="kid-array"),
        pytest.param({"alg": "ALG", "kid": "KID", "typ": "JWT", "crit": ["b64"], "b64": False}, id="crit-b64"),
        pytest.param({"alg": "ALG", "kid": "KID", "typ": "JWT", "jku": "https://evil.example/jwks"}, id="jku"),
        pytest.param({"alg": "ALG", "kid": "KID", "typ": "JWT", "x5u": "https://evil.example/x"}, id="x5u"),
        pytest.param({"alg": "ALG", "kid": "KID", "typ": "JWT", "jwk": {"kty": "oct", "k": ""}}, id="jwk"),
        pytest.param({"alg": "ALG", "kid": "KID", "typ": "JWT", "zip": "DEF"}, id="compressed"),
        pytest.param({"alg": "ALG", "kid": "KID", "typ": "JWT", "x": 1}, id="extra-field"),
    ],
)
def test_verify_refuses_a_token_when_its_header_is_not_ours_to_the_byte(
    service: TokenService, claims: Claims, header: dict[str, Any]
) -> None:
    """No header but that of our key is looked at, not even over a true signature."""
    key = service.keys.oldest_key
    text = json.dumps(header).replace("KID", key.kid).replace("ALG", key.algorithm)
    forged = encode(text.encode())

    for token in (
        sign(key, payload_of(claims), header=forged),
        f"{forged}.{encode(payload_of(claims))}.",
        f"{forged}.{encode(payload_of(claims))}",
        sign_with_hmac(b"", forged, encode(payload_of(claims))),
    ):
        with pytest.raises(InvalidTokenError):
            service.verify(token)


@pytest.mark.parametrize("label", ["HS256", "EdDSA", "ES256", "RS256"])
def test_verify_refuses_a_token_when_it_is_relabelled(service: TokenService, claims: Claims, label: str) -> None:
    """A key of one algorithm is never used with another."""
    key = service.keys.oldest_key
    header = encode(json.dumps({"alg": label, "kid": key.kid, "typ": "JWT"}, separators=(",", ":")).encode())
    if header == key.header:
        header = header[:-1]

    with pytest.raises(InvalidTokenError):
        service.verify(sign(key, payload_of(claims), header=header))


def test_verify_refuses_a_token_when_a_public_key_served_as_secret(
    service: TokenService, algorithm: Algorithm, claims: Claims
) -> None:
    """What everybody may download signs nothing, under any header."""
    key = service.keys.oldest_key
    relabelled = encode(json.dumps({"alg": "HS256", "kid": key.kid, "typ": "JWT"}, separators=(",", ":")).encode())
    secrets = [b"", key.kid.encode()] if algorithm == "HS256" else public_keys_as_bytes(key)

    for secret in secrets:
        for header in (key.header, relabelled):
            with pytest.raises(InvalidTokenError):
                service.verify(sign_with_hmac(secret, header, encode(payload_of(claims))))


def test_verify_refuses_a_token_when_another_server_signed_it(
    service: TokenService, algorithm: Algorithm, claims: Claims, tmp_path: Path
) -> None:
    """Another deployment's key signs nothing here, not even under our header."""
    stranger = open_key_ring(tmp_path / "keys.json", algorithm, now=0).oldest_key

    for header in (stranger.header, service.keys.oldest_key.header):
        with pytest.raises(InvalidTokenError):
            service.verify(sign(stranger, payload_of(claims), header=header))


def test_verify_accepts_an_older_key_until_it_is_retired(
    algorithm: Algorithm, claims: Claims, clock: ManualClock, tmp_path: Path
) -> None:
    """Tokens outlive a rotation, and end with their key."""
    file, now = tmp_path / "keys.json", int(clock.now())
    service = TokenService(open_key_ring(file, algorithm, now=now), clock=clock, issuer="i", audience="a")
    old = service.issue(claims)
    newest = add_key(file, algorithm, now=now, delay=0)

    service.use(read_key_ring(file, algorithm))
    assert claims == service.verify(old)
    assert service.issue(claims).startswith(f"{newest.header}.")

    service.use(KeyRing([newest]))
    with pytest.raises(InvalidTokenError):
        service.verify(old)


def test_issue_signs_with_a_new_key_only_when_its_time_has_come(
    claims: Claims, clock: ManualClock, tmp_path: Path
) -> None:
    """Until then the older one signs, and both verify."""
    file, now = tmp_path / "keys.json", int(clock.now())
    old = open_key_ring(file, "HS256", now=now).oldest_key
    new = add_key(file, "HS256", now=now, delay=10)
    service = TokenService(read_key_ring(file, "HS256"), clock=clock, issuer="tornado_ds", audience="deepstream")

    clock.advance(9.9)
    before = service.issue(claims)
    early = sign(new, payload_of(claims))
    clock.advance(0.1)
    after = service.issue(claims)

    assert before.startswith(f"{old.header}.")
    assert after.startswith(f"{new.header}.")
    assert {claims.sid} == {service.verify(token).sid for token in (before, early, after)}


def test_verify_refuses_a_token_when_its_key_is_gone_or_another(
    hs256_key_ring: KeyRing, claims: Claims, clock: ManualClock, tmp_path: Path
) -> None:
    """What the newest keys say counts at once, also for a token that was good a moment ago."""
    file, now = tmp_path / "keys.json", int(clock.now())
    service = TokenService(open_key_ring(file, "HS256", now=now), clock=clock, issuer="i", audience="a")
    old = service.issue(claims)
    service.verify(old)
    new = add_key(file, "HS256", now=now, delay=0)

    service.use(read_key_ring(file, "HS256"))
    newer = service.issue(claims)
    assert (claims, claims) == (service.verify(old), service.verify(newer))

    service.use(KeyRing([new]))
    assert claims == service.verify(newer)
    with pytest.raises(InvalidTokenError):
        service.verify(old)

    # A stranger's key under the header of ours: what ours has signed is not good any more.
    service.use(KeyRing([replace(hs256_key_ring.oldest_key, kid=new.kid, header=new.header)]))
    with pytest.raises(InvalidTokenError):
        service.verify(newer)


@pytest.mark.parametrize("name", ["ver", "iat", "exp"])
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(lambda honest: str(honest), id="text"),
        pytest.param(lambda honest: float(honest), id="float"),
        pytest.param(lambda honest: honest + 0.5, id="fraction"),
        pytest.param(lambda honest: True, id="true"),
        pytest.param(lambda honest: False, id="false"),
        pytest.param(lambda honest: None, id="null"),
        pytest.param(lambda honest: [honest], id="array"),
        pytest.param(lambda honest: {}, id="object"),
        pytest.param(lambda honest: 10**30, id="over-64-bit"),
    ],
)
def test_verify_refuses_a_signed_token_when_a_number_is_none(
    tokens: TokenService, claims: Claims, name: str, value: Callable[[int], object]
) -> None:
    """Version and times are integers, not what some language would take for one."""
    payload = payload_of(claims)
    payload[name] = value(payload[name])

    with pytest.raises(InvalidTokenError):
        tokens.verify(sign(tokens.keys.oldest_key, payload))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"iss": "tornado_dt"}, id="other-issuer"),
        pytest.param({"iss": ["tornado_ds"]}, id="issuer-array"),
        pytest.param({"iss": None}, id="issuer-null"),
        pytest.param({"aud": "other"}, id="other-audience"),
        pytest.param({"aud": ["deepstream"]}, id="audience-array"),
        pytest.param({"aud": ""}, id="audience-empty"),
        pytest.param({"sub": ""}, id="subject-empty"),
        pytest.param({"sub": 1}, id="subject-number"),
        pytest.param({"sub": None}, id="subject-null"),
        pytest.param({"sub": {"id": "alice"}}, id="subject-object"),
        pytest.param({"sid": ""}, id="session-empty"),
        pytest.param({"sid": None}, id="session-null"),
        pytest.param({"server_data": None}, id="server-data-null"),
        pytest.param({"server_data": []}, id="server-data-array"),
        pytest.param({"client_data": "{}"}, id="client-data-text"),
        pytest.param({"nbf": 0}, id="extra-claim"),
        pytest.param({"": 0}, id="extra-claim-without-name"),
    ],
)
def test_verify_refuses_a_signed_token_when_its_claims_are_not_exact(
    tokens: TokenService, claims: Claims, change: Payload
) -> None:
    """Even a true signature does not make up for claims that we never write."""
    with pytest.raises(InvalidTokenError):
        tokens.verify(sign(tokens.keys.oldest_key, payload_of(claims) | change))


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "sid", "ver", "iat", "exp", "server_data", "client_data"])
def test_verify_refuses_a_signed_token_when_a_claim_is_missing(tokens: TokenService, claims: Claims, name: str) -> None:
    """No claim has a default."""
    payload = payload_of(claims)
    del payload[name]

    with pytest.raises(InvalidTokenError):
        tokens.verify(sign(tokens.keys.oldest_key, payload))


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="array"),
        pytest.param(b'"text"', id="text"),
        pytest.param(b"{", id="not-json"),
        pytest.param(b"[" * 2500, id="deep"),
        pytest.param(b'{"exp": NaN}', id="nan"),
        pytest.param(b"\xff\xfe{}", id="not-utf-8"),
        pytest.param(b'{"sub": "\\ud800"}', id="surrogate"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte-order-mark"),
    ],
)
def test_verify_refuses_a_signed_token_when_its_payload_is_no_object(tokens: TokenService, payload: bytes) -> None:
    """Parsers that surprise do not surprise here."""
    with pytest.raises(InvalidTokenError):
        tokens.verify(sign(tokens.keys.oldest_key, payload))


def test_verify_refuses_a_token_when_base64_is_not_canonical(tokens: TokenService, claims: Claims) -> None:
    """Padding, the other alphabet, blanks, and bits that decoders ignore: one token has one spelling."""
    token = tokens.issue(claims)
    header, payload, signature = token.split(".")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(signature[-1])
    twin = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last ^ 1]

    for spelling in (
        f"{signature}=",
        f"{signature}\n",
        f" {signature}",
        f"{signature[:5]}!{signature[5:]}",
        f"{signature[:-1]}{twin}",
        signature.replace("-", "+").replace("_", "/") + "=",
    ):
        with pytest.raises(InvalidTokenError):
            tokens.verify(f"{header}.{payload}.{spelling}")


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="empty"),
        pytest.param(".", id="dot"),
        pytest.param("..", id="two-dots"),
        pytest.param("...", id="three-dots"),
        pytest.param("null", id="null"),
        pytest.param("OPEN", id="open"),
        pytest.param("\ud800", id="surrogate"),
        pytest.param("é.é.é", id="not-ascii"),
        pytest.param("\uff10" * 100, id="full-width-digits"),
        pytest.param("A" * 1_000_000, id="megabyte"),
        pytest.param("." * 4096, id="dots"),
    ],
)
def test_verify_refuses_what_is_no_token(tokens: TokenService, token: str) -> None:
    """Garbage is refused without a look at the key."""
    with pytest.raises(InvalidTokenError):
        tokens.verify(token)


def test_verify_refuses_a_signed_token_when_it_is_over_4096_bytes(tokens: TokenService, claims: Claims) -> None:
    """The limit holds for what is read too, not only for what is issued."""
    payload = payload_of(replace(claims, server_data={"a": "x" * 4096}))

    with pytest.raises(InvalidTokenError):
        tokens.verify(sign(tokens.keys.oldest_key, payload))


@pytest.mark.parametrize("elapsed", [0, 1, 3599, 3599.999])
def test_verify_accepts_a_token_when_it_has_time_left(
    tokens: TokenService, claims: Claims, clock: ManualClock, elapsed: float
) -> None:
    """The last moment before the expiry counts."""
    token = tokens.issue(claims)

    clock.advance(elapsed)

    assert claims == tokens.verify(token)


@pytest.mark.parametrize("elapsed", [3600, 3600.001, 10**9])
def test_verify_says_expired_when_the_second_has_come(
    tokens: TokenService, claims: Claims, clock: ManualClock, elapsed: float
) -> None:
    """At the very second of its expiry a token is over (RFC 7519, section 4.1.4)."""
    token = tokens.issue(claims)

    clock.advance(elapsed)

    with pytest.raises(ExpiredTokenError):
        tokens.verify(token)


def test_verify_does_not_say_expired_when_the_token_is_forged(
    tokens: TokenService, claims: Claims, clock: ManualClock
) -> None:
    """Only a token that was ours is called expired."""
    token = tokens.issue(claims)
    clock.advance(4000)

    with pytest.raises(InvalidTokenError) as caught:
        tokens.verify(token[:-2])

    assert not isinstance(caught.value, ExpiredTokenError)


def test_verify_accepts_a_token_when_the_clock_was_set_back(
    tokens: TokenService, claims: Claims, clock: ManualClock
) -> None:
    """A login holds although it seems to be from the future."""
    token = tokens.issue(claims)

    clock.set(clock.now() - 86400)

    assert claims == tokens.verify(token)


def test_issue_refuses_data_when_the_cookie_would_be_too_long(tokens: TokenService, claims: Claims) -> None:
    """The longest token fits into 4096 octets together with the cookie's longer name (RFC 6265bis, section 5.6)."""
    name = SessionCookie("https://app.example.com").name
    rest = 2000
    while len(name) + len(tokens.issue(replace(claims, server_data={"a": "x" * rest}))) <= MAX_TOKEN_BYTES - 4:
        rest += 1

    with pytest.raises(UserDataError, match="alice"):
        tokens.issue(replace(claims, server_data={"a": "x" * (rest + 4)}))


def test_check_length_accepts_what_every_algorithm_can_sign(service: TokenService, claims: Claims) -> None:
    """Whoever fits today fits after a change of the algorithm too."""

    def is_accepted(size: int) -> bool:
        try:
            service.check_length(replace(claims, server_data={"a": "x" * size}))
        except UserDataError:
            return False
        return True

    longest = bisect_left(range(4096), True, key=lambda size: not is_accepted(size)) - 1
    token = service.issue(replace(claims, server_data={"a": "x" * longest}))

    assert 2000 < longest < 3000
    assert len(token) <= MAX_ISSUED_BYTES
    assert MAX_ISSUED_BYTES - 4 < len(token) or service.keys.oldest_key.algorithm != "RS256"


@given(text=st.text(st.characters(codec=None)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_verify_raises_its_own_error_whatever_the_text(tokens: TokenService, text: str) -> None:
    """Nothing that a stranger sends raises anything but InvalidTokenError."""
    with pytest.raises(InvalidTokenError):
        tokens.verify(text)


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_verify_accepts_no_token_when_its_parts_are_shuffled(
    tokens: TokenService, claims: Claims, data: st.DataObject
) -> None:
    """Parts of honest tokens, put together anew, are no token."""
    honest = [tokens.issue(claims), tokens.issue(replace(claims, username="bob", sid="other"))]
    part = st.sampled_from([part for token in honest for part in token.split(".")]) | st.text("AB-_=.", max_size=4)

    token = ".".join(data.draw(st.lists(part, max_size=5)))

    if token not in honest:
        with pytest.raises(InvalidTokenError):
            tokens.verify(token)
