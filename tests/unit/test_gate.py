import asyncio
import json
import threading
import tracemalloc
from base64 import b64encode
from collections.abc import Awaitable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.fakes import ManualClock
from tornado_ds.accounts import Accounts
from tornado_ds.audit import Audit
from tornado_ds.checker import SessionChecker
from tornado_ds.cookies import SessionCookie
from tornado_ds.errors import AuthenticationError, StorageError, UserDataError, UserExistsError
from tornado_ds.gate import LOGIN_SECONDS, MAX_BODY_BYTES, ConnectionGate, Refusal, Verdict
from tornado_ds.key_file import open_key_ring
from tornado_ds.keys import KeyRing
from tornado_ds.metrics import Metrics
from tornado_ds.passwords import MAX_WAITING, PasswordHasher
from tornado_ds.sessions import OpenSession, Sessions
from tornado_ds.snapshot import SessionSnapshot
from tornado_ds.storage.memory import MemoryAuditStore, MemorySessionStore, MemoryThrottleStore, MemoryUserStore
from tornado_ds.throttle import FREE_FAILURES, Throttle
from tornado_ds.tokens import TokenService
from tornado_ds.users import User, UserChanges, is_username, username_key

SECRET = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
AUTHORIZATION = "Basic " + b64encode(f"deepstream:{SECRET}".encode()).decode()
ORIGIN = "https://app.example.com"
PASSWORD = "correct horse battery staple"
OTHER_PASSWORD = "another horse, another staple"

STATUSES = {200, 401, 403, 413, 415, 503}
DENIALS = {
    "not_logged_in",
    "session_invalid",
    "session_expired",
    "session_ended",
    "account_disabled",
    "origin_denied",
    "invalid_credentials",
    "throttled",
}


class FlakyUserStore(MemoryUserStore):
    """A store that can be away."""

    is_away = False

    async def get(self, username: str) -> User | None:
        self._answer()
        return await super().get(username)

    async def get_many(self, usernames: Collection[str]) -> dict[str, User]:
        self._answer()
        return await super().get_many(usernames)

    def _answer(self) -> None:
        if self.is_away:
            raise StorageError("the database does not answer")


@dataclass(frozen=True)
class World:
    """A gate, and what it stands on."""

    gate: ConnectionGate
    users: FlakyUserStore
    accounts: Accounts
    sessions: Sessions
    snapshot: SessionSnapshot
    tokens: TokenService
    hasher: PasswordHasher
    clock: ManualClock
    alice: OpenSession

    def decide(self, request: object, *, raw: bytes | None = None) -> Verdict:
        """The verdict about *request*, sent by deepstream itself."""
        body = json.dumps(request).encode() if raw is None else raw
        return settle(self.gate.decide(body, authorization=AUTHORIZATION, content_type="application/json"))

    @property
    def cookie(self) -> str:
        """What alice's browser sends."""
        return f"__Host-access_token={self.alice.token}"


def settle(answer: Verdict | Awaitable[Verdict]) -> Verdict:
    """The verdict, also if it is still to be awaited; a lawful one in any case."""

    async def wait(pending: Awaitable[Verdict]) -> Verdict:
        return await pending

    verdict = answer if isinstance(answer, Verdict) else asyncio.run(wait(answer))
    assert_lawful(verdict)
    return verdict


def assert_lawful(verdict: Verdict) -> None:
    """The promises that hold for every answer, whatever was asked (deepstream.md, sections 1 and 3)."""
    assert verdict.status in STATUSES
    assert b"isValid" not in verdict.body
    if verdict.status == 200:
        answer = orjson.loads(verdict.body)
        assert verdict.content_type == "application/json"
        assert isinstance(answer["id"], str)
        assert answer["id"]
        assert answer["id"] == answer["username"]
    else:
        assert verdict.content_type.startswith("text/plain")
        assert verdict.status != 403 or verdict.body.decode() in DENIALS
        assert verdict.status != 503 or verdict.body == b"unavailable"


def websocket(auth: object = None, **headers: object) -> dict[str, object]:
    """What deepstream asks when a client logs in over a WebSocket."""
    return {
        "connectionData": {"remoteAddress": "203.0.113.9", "headers": headers},
        "authData": {} if auth is None else auth,
    }


def http_api(auth: object = None, *, url: str = "/api", **headers: object) -> dict[str, object]:
    """What deepstream asks for a request to its HTTP API."""
    return {"connectionData": {"headers": headers, "url": url}, "authData": {} if auth is None else auth}


def mqtt(username: object, password: object) -> dict[str, object]:
    """What deepstream asks for an MQTT client."""
    return {"connectionData": {}, "authData": {"username": username, "password": password}}


async def build(
    keys: KeyRing,
    clock: ManualClock,
    hasher: PasswordHasher,
    *,
    credentials_login: bool,
    login_seconds: float = LOGIN_SECONDS,
) -> World:
    """A gate in front of one user, alice, who has a session."""
    users = FlakyUserStore(clock=clock)
    tokens = TokenService(keys, clock=clock, issuer="tornado_ds", audience="deepstream")
    snapshot = SessionSnapshot(clock=clock, stale_for=300)
    snapshot.mark_read()
    metrics = Metrics()
    audit = Audit(MemoryAuditStore(), clock=clock, keep=86400)
    sessions = Sessions(
        MemorySessionStore(),
        tokens=tokens,
        snapshot=snapshot,
        audit=audit,
        clock=clock,
        idle_timeout=3600,
        absolute_timeout=86400,
        metrics=metrics,
    )
    throttle = Throttle(MemoryThrottleStore(), keys=lambda: keys, clock=clock)
    accounts = Accounts(
        users,
        passwords=hasher,
        throttle=throttle,
        sessions=sessions,
        audit=audit,
        min_password_length=12,
        metrics=metrics,
    )
    gate = ConnectionGate(
        checker=SessionChecker(tokens=tokens, snapshot=snapshot, users=users),
        accounts=accounts,
        cookie=SessionCookie(ORIGIN),
        secret=SECRET,
        allowed_origins=[ORIGIN, "http://localhost:8000"],
        credentials_login=credentials_login,
        login_seconds=login_seconds,
    )
    alice = await accounts.add("alice", PASSWORD, server_data={"roles": ["admin"]}, client_data={"colour": "blue"})
    return World(gate, users, accounts, sessions, snapshot, tokens, hasher, clock, await sessions.open(alice))


@pytest.fixture
def world(hs256_key_ring: KeyRing, clock: ManualClock, hasher: PasswordHasher) -> World:
    """A gate as it is by default."""
    return asyncio.run(build(hs256_key_ring, clock, hasher, credentials_login=False))


@pytest.fixture
def open_world(hs256_key_ring: KeyRing, clock: ManualClock, hasher: PasswordHasher) -> World:
    """A gate with `webhook.credentials_login`."""
    return asyncio.run(build(hs256_key_ring, clock, hasher, credentials_login=True))


@pytest.fixture(scope="module")
def lasting_world(hs256_key_ring: KeyRing) -> Iterator[World]:
    """A gate with `webhook.credentials_login` for many examples that change nothing."""
    hasher = PasswordHasher(cost=4, threads=1)
    yield asyncio.run(build(hs256_key_ring, ManualClock(), hasher, credentials_login=True))
    hasher.close()


def test_decide_answers_all_that_deepstream_reads(world: World) -> None:
    """`id` for deepstream 5 and later, `username` before; data for rules and for the client, with expiry in ms."""
    verdict = world.decide(websocket(cookie=world.cookie, origin=ORIGIN))

    expires_at = (int(world.clock.now()) + 3600) * 1000
    expected = {
        "id": "alice",
        "username": "alice",
        "clientData": {"colour": "blue", "username": "alice", "expiresAt": expires_at},
        "serverData": {
            "roles": ["admin"],
            "sid": world.alice.session.sid,
            "version": 1,
            "expiresAt": expires_at,
        },
    }
    assert expected == orjson.loads(verdict.body)
    assert verdict.code == "ok"


def test_decide_answers_the_same_when_asked_again(world: World) -> None:
    """A client that reconnects finds what it found before."""
    request = websocket(cookie=world.cookie, origin=ORIGIN)

    assert world.decide(request) == world.decide(request)


@pytest.mark.parametrize(
    ("expected", "shape"),
    [
        pytest.param(
            "ok", {"connectionData": {"headers": {"cookie": "C", "origin": "O"}}, "authData": {}}, id="cookie"
        ),
        pytest.param("ok", http_api(cookie="C", origin="O"), id="http-cookie"),
        pytest.param("origin_denied", http_api(cookie="C"), id="http-cookie-from-anywhere"),
        pytest.param("origin_denied", websocket(cookie="C"), id="cookie-from-anywhere"),
        pytest.param("ok", websocket({"token": "T"}), id="token"),
        pytest.param("ok", http_api({"token": "T"}), id="http-token"),
        pytest.param("ok", http_api({"token": "T", "more": [1]}, url="/api/auth"), id="http-auth-with-more"),
        pytest.param("ok", {"connectionData": {}, "authData": {"token": "T"}}, id="token-without-headers"),
        pytest.param("ok", {"authData": {"token": "T"}}, id="token-alone"),
        pytest.param("not_logged_in", websocket(), id="nothing"),
        pytest.param("not_logged_in", http_api(), id="http-nothing"),
        pytest.param("not_logged_in", http_api({"body": 1}, url="/api/auth"), id="http-auth-with-something-else"),
        pytest.param("not_logged_in", websocket(cookie="", origin="O"), id="uws-without-cookie"),
        pytest.param("not_logged_in", websocket(cookie="theme=dark", origin="O"), id="another-cookie"),
        pytest.param("not_logged_in", websocket(cookie="C; C", origin="O"), id="cookie-twice"),
        pytest.param("not_logged_in", websocket(cookie=["C"], origin="O"), id="cookie-in-an-array"),
        pytest.param("not_logged_in", websocket(Cookie="C", origin="O"), id="cookie-in-capitals"),
        pytest.param("session_invalid", websocket(cookie="C.", origin="O"), id="damaged-cookie"),
        pytest.param("invalid_credentials", mqtt("alice", PASSWORD), id="credentials-while-off"),
        pytest.param("invalid_credentials", mqtt("alice", "wrong"), id="wrong-credentials-while-off"),
    ],
)
def test_decide_understands_all_shapes_of_requests(world: World, expected: str, shape: object) -> None:
    """WebSocket, HTTP API, its /auth and MQTT send different things for the same question."""
    text = json.dumps(shape).replace('"O"', f'"{ORIGIN}"').replace('"T"', f'"{world.alice.token}"')
    text = text.replace('"C', f'"{world.cookie}').replace("; C", f"; {world.cookie}")

    verdict = world.decide(None, raw=text.encode())

    assert expected == verdict.code


@pytest.mark.parametrize(
    ("expected", "origin"),
    [
        pytest.param(200, ORIGIN, id="ours"),
        pytest.param(200, "http://localhost:8000", id="another-of-ours"),
        pytest.param(403, "", id="empty"),
        pytest.param(403, None, id="null"),
        pytest.param(403, "null", id="opaque"),
        pytest.param(403, [ORIGIN], id="array"),
        pytest.param(403, [ORIGIN, "https://evil.example"], id="two"),
        pytest.param(403, {"origin": ORIGIN}, id="object"),
        pytest.param(403, True, id="true"),
        pytest.param(403, "https://app.example.com.evil.example", id="suffix"),
        pytest.param(403, "https://evil-app.example.com", id="prefix"),
        pytest.param(403, "https://sub.app.example.com", id="subdomain"),
        pytest.param(403, "https://example.com", id="parent-domain"),
        pytest.param(403, "https://app.example.com:443", id="default-port-spelled-out"),
        pytest.param(403, "https://app.example.com:8443", id="other-port"),
        pytest.param(403, "http://localhost:8001", id="other-local-port"),
        pytest.param(403, "http://127.0.0.1:8000", id="other-name-of-localhost"),
        pytest.param(403, "http://app.example.com", id="other-scheme"),
        pytest.param(403, "wss://app.example.com", id="websocket-scheme"),
        pytest.param(403, "HTTPS://APP.EXAMPLE.COM", id="capitals"),
        pytest.param(403, "https://app.example.com/", id="slash"),
        pytest.param(403, " https://app.example.com", id="blank-before"),
        pytest.param(403, "https://app.example.com\n", id="line-feed-behind"),
        pytest.param(403, "https://app.example.com, https://app.example.com", id="joined"),
        pytest.param(403, "https://user@app.example.com", id="user-in-it"),
        pytest.param(403, "https://\u0430pp.example.com", id="cyrillic-look-alike"),
        pytest.param(403, "http://[", id="no-url"),
        pytest.param(403, "x" * 60_000, id="long"),
    ],
)
def test_decide_takes_a_cookie_from_our_origins_only(world: World, expected: int, origin: object) -> None:
    """A page of anybody else cannot open a socket with the visitor's cookie."""
    verdict = world.decide(websocket(cookie=world.cookie, origin=origin))

    assert expected == verdict.status
    assert verdict.code == ("ok" if expected == 200 else "origin_denied")


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="empty"),
        pytest.param("x.y.z", id="forged"),
        pytest.param(None, id="null"),
        pytest.param(True, id="true"),
        pytest.param(7, id="number"),
        pytest.param(["T"], id="array"),
        pytest.param({"token": "T"}, id="object"),
        pytest.param("T ", id="blank-behind"),
        pytest.param("Bearer T", id="bearer"),
        pytest.param("T\n", id="line-feed-behind"),
    ],
)
def test_decide_does_not_fall_back_to_the_cookie_when_a_token_was_given(world: World, token: object) -> None:
    """The token in authData is what counts; a bad one is not mended by a good cookie."""
    request = websocket({"token": token}, cookie=world.cookie, origin=ORIGIN)
    raw = json.dumps(request).replace('"T', f'"{world.alice.token}').replace("Bearer T", f"Bearer {world.alice.token}")

    assert world.decide(None, raw=raw.encode()).code == "session_invalid"


def test_decide_takes_the_token_when_there_is_a_bad_cookie_from_a_bad_origin_too(world: World) -> None:
    """A token needs no origin, and is not spoiled by what the browser adds."""
    request = websocket({"token": world.alice.token}, cookie="__Host-access_token=x", origin="https://evil.example")

    assert world.decide(request).status == 200


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not json", id="text"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="array"),
        pytest.param(b'"authData"', id="string"),
        pytest.param(b"1e999", id="infinity"),
        pytest.param(b"NaN", id="nan"),
        pytest.param(b'{"authData": NaN}', id="nan-inside"),
        pytest.param(b"{}", id="empty-object"),
        pytest.param(b'{"connectionData": [], "authData": "token"}', id="wrong-types"),
        pytest.param(b'{"connectionData": {"headers": []}, "authData": []}', id="arrays"),
        pytest.param(b'{"connectionData": {"headers": {"cookie": {"a": 1}}}}', id="cookie-object"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte-order-mark"),
        pytest.param(b"\xff\xfe{\0}\0", id="utf-16"),
        pytest.param(b"\xc3\x28", id="invalid-utf-8"),
        pytest.param(b'{"authData": {"x": "\\ud800"}}', id="escaped-surrogate"),
        pytest.param(b'{"authData": {"x": "\xed\xa0\x80"}}', id="raw-surrogate"),
        pytest.param(b"[" * 60_000, id="brackets"),
        pytest.param(b'{"authData":' * 5_000, id="braces"),
        pytest.param(b'{"authData":' + b"[" * 900 + b"]" * 900 + b"}", id="deep-but-json"),
        pytest.param(b'{"authData": 1' + b"0" * 50_000 + b"}", id="huge-number"),
        pytest.param(b"\0" * 1000, id="nul"),
        pytest.param(b"a=1&token=x", id="form"),
    ],
)
def test_decide_lets_nobody_in_when_the_body_says_nothing(world: World, raw: bytes) -> None:
    """Whatever is no request is a request without credentials."""
    verdict = world.decide(None, raw=raw)

    assert (verdict.status, verdict.code) == (403, "not_logged_in")


@pytest.mark.parametrize(
    ("expected", "size"),
    [
        pytest.param(200, MAX_BODY_BYTES, id="largest"),
        pytest.param(413, MAX_BODY_BYTES + 1, id="one-more"),
        pytest.param(413, 1024 * 1024, id="mebibyte"),
    ],
)
def test_decide_says_too_large_above_64_kibibytes(world: World, expected: int, size: int) -> None:
    """A body is read up to the limit, and not beyond, although a good token is in it."""
    raw = json.dumps({"authData": {"token": world.alice.token}}).encode().ljust(size)

    assert expected == world.decide(None, raw=raw).status


def test_decide_says_too_large_when_100_000_brackets_are_sent(world: World) -> None:
    """More brackets than a recursive parser survives are not parsed at all."""
    assert world.decide(None, raw=b"[" * 100_000).status == 413


def test_decide_takes_the_last_of_doubled_members_like_deepstream_does(world: World) -> None:
    """JSON.parse and our parser agree on which of two members counts, so neither sees another client."""
    raw = f'{{"authData": {{"token": "x", "token": "{world.alice.token}"}}}}'.encode()
    assert world.decide(None, raw=raw).status == 200

    raw = f'{{"authData": {{"token": "{world.alice.token}", "token": "x"}}}}'.encode()
    assert world.decide(None, raw=raw).code == "session_invalid"


TEXTS = st.text(max_size=20) | st.sampled_from(["alice", PASSWORD, ORIGIN, "COOKIE", "TOKEN", "OPEN", "null"])
NAMES = st.sampled_from(
    ["headers", "cookie", "origin", "token", "username", "password", "remoteAddress", "url", "id", "isValid"]
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(connection=JSON_VALUES, auth=JSON_VALUES, headers=JSON_VALUES)
@example(connection={"headers": {"cookie": "COOKIE", "origin": ORIGIN}}, auth={}, headers=None)
@example(connection={}, auth={"username": "alice", "password": PASSWORD}, headers=None)
@settings(max_examples=3 * settings().max_examples, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_decide_answers_lawfully_whatever_the_values_are(
    lasting_world: World, connection: object, auth: object, headers: object
) -> None:
    """Wrong types at every level raise nothing, and let in nobody but alice."""
    if isinstance(connection, dict) and headers is not None:
        connection = connection | {"headers": headers}
    text = json.dumps({"connectionData": connection, "authData": auth})
    text = text.replace("COOKIE", lasting_world.cookie).replace("TOKEN", lasting_world.alice.token)

    verdict = lasting_world.decide(None, raw=text.encode())

    assert verdict.status != 200 or orjson.loads(verdict.body)["id"] == "alice"


# Letters that change when they are normalised or folded, and what a terminal, a header, a page or a shell obeys.
ODD_NAMES = st.text(
    "aZ1\u00df\ufb01\u0130\u03c2\u0301\r\n\x1b\x85\u202e\u2066\u200b\u2028\ufeff\xa0 ;=,%\"'<>&\\", max_size=12
)


@given(name=ODD_NAMES | st.text(st.characters(codec=None), max_size=140))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_name_is_refused_or_comes_through_as_it_is(
    hs256_key_ring: KeyRing, clock: ManualClock, hasher: PasswordHasher, name: str
) -> None:
    """Whoever can be added logs in, and deepstream and its rules see the very name; nobody else exists."""
    world = asyncio.run(build(hs256_key_ring, clock, hasher, credentials_login=False))

    opened = asyncio.run(log_in_as_new_user(world, name))

    if opened is None:
        assert not is_username(name) or username_key(name) == "alice"
    else:
        set_cookie = SessionCookie(ORIGIN).set_header(opened.token, expires_at=2_000_000_000)
        verdict = world.decide(websocket(cookie=set_cookie.partition(";")[0], origin=ORIGIN))
        answer = orjson.loads(verdict.body)
        assert (200, name, name) == (verdict.status, answer["id"], answer["clientData"]["username"])


async def log_in_as_new_user(world: World, name: str) -> OpenSession | None:
    """Add a user and log in; None if the name is refused or taken, in which case it must not open anything."""
    try:
        await world.accounts.add(name, OTHER_PASSWORD)
    except (UserDataError, UserExistsError):
        with pytest.raises(AuthenticationError):
            await world.accounts.log_in(name, OTHER_PASSWORD)
        return None
    return await world.accounts.log_in(name, OTHER_PASSWORD)


@given(raw=st.binary(), authorization=st.none() | st.text(st.characters(codec=None)), kind=st.none() | st.text())
def test_decide_answers_lawfully_whatever_the_bytes_are(
    lasting_world: World, raw: bytes, authorization: str | None, kind: str | None
) -> None:
    """Body and headers of any kind get an answer from the closed list, and never a 200."""
    for who in (authorization, AUTHORIZATION):
        verdict = settle(lasting_world.gate.decide(raw, authorization=who, content_type=kind))
        assert verdict.status != 200
        assert settle(lasting_world.gate.decide(raw, authorization=who, content_type="application/json")).status != 200


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(AUTHORIZATION, id="as-clients-write-it"),
        pytest.param(AUTHORIZATION.replace("Basic", "basic"), id="lower-case"),
        pytest.param(AUTHORIZATION.replace("Basic", "BASIC"), id="capitals"),
        pytest.param(AUTHORIZATION.replace(" ", "   ") + " ", id="blanks"),
    ],
)
def test_is_deepstream_says_yes_to_the_secret(world: World, authorization: str) -> None:
    """The scheme is not sensitive to case (RFC 9110, section 11.1)."""
    assert world.gate.is_deepstream(authorization)


def basic(credentials: str) -> str:
    """A header for *credentials*."""
    return f"Basic {b64encode(credentials.encode()).decode()}"


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="empty"),
        pytest.param("Basic", id="scheme-only"),
        pytest.param("Basic ", id="scheme-and-blank"),
        pytest.param(basic(""), id="nothing"),
        pytest.param(basic(":"), id="colon"),
        pytest.param(basic("deepstream:"), id="no-secret"),
        pytest.param(basic(f":{SECRET}"), id="no-user"),
        pytest.param(basic(SECRET), id="secret-without-user"),
        pytest.param(basic(f"admin:{SECRET}"), id="other-user"),
        pytest.param(basic(f"Deepstream:{SECRET}"), id="user-in-capitals"),
        pytest.param(basic(f"deepstream:{SECRET}x"), id="longer"),
        pytest.param(basic(f"deepstream:{SECRET[:-1]}"), id="shorter"),
        pytest.param(basic(f"deepstream:{SECRET.upper()}"), id="secret-in-capitals"),
        pytest.param(basic(f"deepstream:{SECRET}\n"), id="line-feed"),
        pytest.param(f"deepstream:{SECRET}", id="not-encoded"),
        pytest.param(AUTHORIZATION.replace("Basic", "Bearer"), id="bearer"),
        pytest.param(AUTHORIZATION.replace("Basic ", ""), id="no-scheme"),
        pytest.param(AUTHORIZATION.replace(" ", ""), id="no-blank"),
        pytest.param(AUTHORIZATION.rstrip("="), id="no-padding"),
        pytest.param(f"{AUTHORIZATION},{AUTHORIZATION}", id="twice"),
        pytest.param(f"{AUTHORIZATION} x", id="more-behind"),
        pytest.param("Basic \u00e4\u00f6\u00fc", id="not-ascii"),
        pytest.param("Basic \ud800", id="surrogate"),
        pytest.param("Basic =", id="padding-only"),
    ],
)
def test_decide_says_unauthorized_when_somebody_else_asks(world: World, authorization: str | None) -> None:
    """Without the secret nothing is looked at, however good the token is."""
    body = json.dumps({"authData": {"token": world.alice.token}}).encode()

    verdict = settle(world.gate.decide(body, authorization=authorization, content_type="application/json"))

    assert (verdict.status, verdict.body) == (401, b"unauthorized")


@pytest.mark.parametrize(
    ("expected", "content_type"),
    [
        pytest.param(200, "application/json", id="json"),
        pytest.param(200, "application/json; charset=utf-8", id="as-deepstream-says-it"),
        pytest.param(200, "Application/JSON ;charset=UTF-8", id="capitals-and-blanks"),
        pytest.param(415, None, id="none"),
        pytest.param(415, "", id="empty"),
        pytest.param(415, "text/plain", id="text"),
        pytest.param(415, "application/x-www-form-urlencoded", id="form"),
        pytest.param(415, "application/json-patch+json", id="something-like-json"),
        pytest.param(415, "text/plain; application/json", id="json-as-parameter"),
        pytest.param(415, ";application/json", id="json-behind"),
    ],
)
def test_decide_wants_json(world: World, expected: int, content_type: str | None) -> None:
    """A page's form can send text, but not JSON, to another site without asking."""
    body = json.dumps({"authData": {"token": world.alice.token}}).encode()

    verdict = settle(world.gate.decide(body, authorization=AUTHORIZATION, content_type=content_type))

    assert expected == verdict.status


@pytest.mark.parametrize(
    ("username", "password"),
    [
        pytest.param("alice", "wrong", id="wrong-password"),
        pytest.param("alice", PASSWORD + " ", id="blank-behind"),
        pytest.param("alice", PASSWORD[:-1], id="cut"),
        pytest.param("bob", PASSWORD, id="unknown-user"),
        pytest.param("alice\0", PASSWORD, id="nul-in-name"),
        pytest.param("alice", PASSWORD + "\0", id="nul-in-password"),
        pytest.param("", PASSWORD, id="empty-name"),
        pytest.param("alice", "", id="empty-password"),
        pytest.param(None, PASSWORD, id="null-name"),
        pytest.param("alice", None, id="null-password"),
        pytest.param("alice", True, id="true"),
        pytest.param(["alice"], PASSWORD, id="name-in-array"),
        pytest.param("alice", {"$ne": ""}, id="password-object"),
        pytest.param("a" * 60_000, PASSWORD, id="long-name"),
        pytest.param("alice", "x" * 60_000, id="long-password"),
        pytest.param("OPEN", PASSWORD, id="open"),
    ],
)
def test_decide_refuses_credentials_when_they_are_not_good(
    open_world: World, username: object, password: object
) -> None:
    """One answer for every reason; the cookie beside them does not help."""
    for request in (
        mqtt(username, password),
        websocket({"username": username, "password": password}, cookie=open_world.cookie, origin=ORIGIN),
    ):
        verdict = open_world.decide(request)
        assert (verdict.status, verdict.body) == (403, b"invalid_credentials")


@pytest.mark.parametrize("auth", [{"username": "alice"}, {"password": PASSWORD}])
def test_decide_refuses_credentials_when_half_of_them_is_missing(open_world: World, auth: object) -> None:
    """A name alone is no login."""
    assert open_world.decide(websocket(auth)).code == "invalid_credentials"


def test_decide_opens_a_session_when_credentials_are_good(open_world: World) -> None:
    """The answer carries the token for the next connection, for /api/auth and for the client."""
    answer = orjson.loads(open_world.decide(mqtt("Alice", PASSWORD)).body)

    token = answer["token"]
    again = orjson.loads(open_world.decide(websocket({"token": token})).body)
    assert token == answer["clientData"]["token"]
    assert (answer["id"], again["id"]) == ("alice", "alice")
    assert answer["serverData"] == again["serverData"]
    assert answer["serverData"]["sid"] != open_world.alice.session.sid
    assert "token" not in again
    assert "token" not in again["clientData"]


def test_decide_refuses_credentials_when_the_account_is_disabled(open_world: World) -> None:
    """A disabled account looks like a wrong password."""
    asyncio.run(open_world.accounts.change("alice", UserChanges(disabled=True)))

    assert open_world.decide(mqtt("alice", PASSWORD)).code == "invalid_credentials"


def test_decide_says_unavailable_when_too_many_passwords_wait(open_world: World) -> None:
    """A full queue is our trouble: 503, which deepstream tries again, and not a failed login."""

    async def flood() -> tuple[Verdict, Verdict]:
        waiting = [asyncio.ensure_future(open_world.hasher.hash(PASSWORD)) for _ in range(1 + MAX_WAITING)]
        await asyncio.sleep(0)
        crowded = await as_coroutine(open_world, mqtt("alice", PASSWORD))
        await asyncio.gather(*waiting)
        return crowded, await as_coroutine(open_world, mqtt("alice", PASSWORD))

    crowded, later = asyncio.run(flood())

    assert_lawful(crowded)
    assert (crowded.status, later.status) == (503, 200)


def test_decide_says_unavailable_when_a_password_waits_for_too_long(
    hs256_key_ring: KeyRing, clock: ManualClock, hasher: PasswordHasher
) -> None:
    """After 2 s deepstream has given up, and nobody would know of a session that is opened then."""
    world = asyncio.run(build(hs256_key_ring, clock, hasher, credentials_login=True, login_seconds=0.01))
    thread_is_free = threading.Event()

    async def wait() -> list[Verdict]:
        hashing = asyncio.get_running_loop().run_in_executor(world.hasher._pool, thread_is_free.wait)
        # More than there are free failures: nobody is throttled for having waited.
        verdicts = [await as_coroutine(world, mqtt("alice", PASSWORD)) for _ in range(2 * FREE_FAILURES)]
        thread_is_free.set()
        await hashing
        return verdicts

    verdicts = asyncio.run(wait())
    sessions = asyncio.run(world.sessions.list("alice"))

    for verdict in verdicts:
        assert_lawful(verdict)
    assert [503] * 2 * FREE_FAILURES == [verdict.status for verdict in verdicts]
    assert [world.alice.session] == list(sessions)


def test_answers_that_are_remembered_take_little_more_memory_than_they_are_long(world: World) -> None:
    """16 384 of them are kept, so what surrounds each counts as well."""
    tokens = [world.tokens.issue(replace(world.alice.claims, sid=f"{number:032}")) for number in range(500)]
    bodies = [json.dumps(websocket({"token": token})).encode() for token in tokens]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    lengths = [len(bodies[number]) + len(settle(world.gate.decide_body(bodies[number])).body) for number in range(500)]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert after - before < sum(lengths) + 500 * 1024


async def as_coroutine(world: World, request: object) -> Verdict:
    """The verdict about *request*, inside a running loop."""
    answer = world.gate.decide(
        json.dumps(request).encode(), authorization=AUTHORIZATION, content_type="application/json"
    )
    return answer if isinstance(answer, Verdict) else await answer


def test_decide_says_unavailable_when_the_store_is_away(open_world: World) -> None:
    """An outage is never a 403, and never a 200 without knowing."""
    asyncio.run(open_world.accounts.change("alice", UserChanges(server_data={"roles": []})))
    open_world.users.is_away = True

    assert open_world.decide(mqtt("alice", PASSWORD)).status == 503
    assert open_world.decide(websocket({"token": open_world.alice.token})).status == 503

    open_world.users.is_away = False

    assert open_world.decide(mqtt("alice", PASSWORD)).status == 200
    assert open_world.decide(websocket({"token": open_world.alice.token})).status == 200


def test_decide_goes_on_from_memory_when_the_store_is_away(world: World) -> None:
    """A connection whose user has not changed is checked without any database."""
    world.users.is_away = True

    assert world.decide(websocket(cookie=world.cookie, origin=ORIGIN)).status == 200


def test_decide_hands_over_new_data_when_the_user_has_changed(world: World) -> None:
    """An older token brings the roles of now, and goes on bringing them."""
    request = websocket(cookie=world.cookie, origin=ORIGIN)
    world.decide(request)

    asyncio.run(world.accounts.change("alice", UserChanges(server_data={"roles": ["guest"]}, client_data={})))

    for _ in range(2):
        answer = orjson.loads(world.decide(request).body)
        assert answer["serverData"]["roles"] == ["guest"]
        assert answer["serverData"]["version"] == 2
        assert "colour" not in answer["clientData"]


@pytest.mark.parametrize("is_stale", [False, True], ids=["fresh", "stale"])
@pytest.mark.parametrize(
    ("expected", "what"),
    [
        pytest.param("session_ended", "logout", id="logout"),
        pytest.param("session_ended", "new-password", id="new-password"),
        pytest.param("session_ended", "removed", id="removed"),
        pytest.param("account_disabled", "disabled", id="disabled"),
        pytest.param("session_expired", "expired", id="expired"),
    ],
)
def test_decide_refuses_a_session_when_it_is_over(world: World, expected: str, what: str, is_stale: bool) -> None:
    """The very next check says so, also when the feed has been away for longer than allowed."""
    request = websocket(cookie=world.cookie, origin=ORIGIN)
    assert world.decide(request).status == 200

    if what == "logout":
        asyncio.run(world.sessions.end(world.alice.session.sid, reason="logout"))
    elif what == "new-password":
        asyncio.run(world.accounts.set_password("alice", "another horse, another staple"))
    elif what == "removed":
        asyncio.run(world.accounts.remove("alice"))
    elif what == "disabled":
        asyncio.run(world.accounts.change("alice", UserChanges(disabled=True)))
    else:
        world.clock.advance(3600)
    if is_stale:
        world.clock.advance(301)

    verdict = world.decide(request)
    assert (403, expected) == (verdict.status, verdict.code)


def test_decide_refuses_a_token_that_it_has_let_in_when_its_key_is_retired(world: World, tmp_path: Path) -> None:
    """An answer is remembered until a key goes; a new one beside them has nobody checked again."""
    request = websocket(cookie=world.cookie, origin=ORIGIN)
    before = world.decide(request)
    newer = open_key_ring(tmp_path / "keys.json", "HS256", now=int(world.clock.now()))

    world.tokens.use(KeyRing([*world.tokens.keys.keys, *newer.keys]))
    assert before is world.decide(request)

    world.tokens.use(newer)
    assert world.decide(request).code == "session_invalid"


def test_decide_knows_who_it_has_let_in_when_somebody_else_has_changed(world: World) -> None:
    """Ends and changes of others touch nobody's answer, however often they come."""
    request = websocket(cookie=world.cookie, origin=ORIGIN)
    asyncio.run(world.accounts.add("bob", PASSWORD))
    before = world.decide(request)

    asyncio.run(world.accounts.change("bob", UserChanges(server_data={"roles": []})))

    assert before is world.decide(request)


def test_decide_says_unavailable_for_a_good_token_when_the_feed_is_away_for_too_long(world: World) -> None:
    """Not knowing is a 503, also for what was answered with 200 a moment ago."""
    request = websocket(cookie=world.cookie, origin=ORIGIN)
    assert world.decide(request).status == 200

    world.clock.advance(301)
    assert (world.decide(request).status, world.decide(request).body) == (503, b"unavailable")
    assert world.decide(websocket({"token": "forged"})).code == "session_invalid"

    world.snapshot.mark_read()
    assert world.decide(request).status == 200


@pytest.mark.parametrize(
    ("expected", "request_body"),
    [
        pytest.param(
            {"origin": "https://evil.example", "address": "203.0.113.9", "reason": "no cookie"},
            websocket(cookie="", origin="https://evil.example"),
            id="websocket",
        ),
        pytest.param(
            {"address": "1.2.3.4, 5.6.7.8", "reason": "no cookie"},
            {"connectionData": {"headers": {"cookie": "", "x-forwarded-for": "1.2.3.4, 5.6.7.8"}, "url": "/api"}},
            id="http-api",
        ),
        pytest.param({"reason": "webhook.credentials_login is off"}, mqtt("alice", PASSWORD), id="mqtt"),
        pytest.param({}, {"connectionData": {}, "authData": {"token": "forged"}}, id="token-and-nothing-else"),
        pytest.param(
            {},
            {"connectionData": {"remoteAddress": ["x"], "headers": {"origin": {"x": 1}}}, "authData": {"token": 1}},
            id="other-types",
        ),
        pytest.param({"reason": "the body is no JSON object"}, ["connectionData"], id="array"),
        pytest.param(
            {"origin": "\\x1b[2J\\u202e\\r\\nx", "address": "x" * 200},
            {
                "connectionData": {"remoteAddress": "x" * 50_000, "headers": {"origin": "\x1b[2J\u202e\r\nx"}},
                "authData": {"token": "forged"},
            },
            id="attack",
        ),
    ],
)
def test_refusal_says_for_the_log_where_it_came_from(
    world: World, expected: dict[str, str], request_body: object
) -> None:
    """As far as the client said so, cut and escaped; the client itself gets the code alone."""
    verdict = world.decide(None, raw=json.dumps(request_body).encode())

    assert isinstance(verdict, Refusal)
    assert verdict.details == expected
    assert verdict.body == verdict.code.encode()


def test_refusal_explains_a_cookie_that_did_not_come_along(world: World) -> None:
    """Whoever uses deepstream's uws service learns which setting is missing."""
    verdict = world.decide(websocket(host="app.example.com"))

    assert isinstance(verdict, Refusal)
    assert "httpServer.options.headers must list cookie, origin" in verdict.details["reason"]


def test_decide_writes_no_secret_into_the_log(open_world: World) -> None:
    """Tokens, cookies and passwords are in no log line, on no path."""
    canaries: Collection[str] = {"canary-password", open_world.alice.token, SECRET}
    token = open_world.alice.token

    with capture_logs() as logs:
        verdicts = [
            open_world.decide(request)
            for request in (
                websocket(cookie=open_world.cookie, origin="https://evil.example"),
                websocket(cookie=open_world.cookie + "x", origin=ORIGIN),
                websocket({"token": token[:-1]}),
                mqtt("alice", "canary-password"),
                mqtt("canary-password", "canary-password"),
                websocket(),
            )
        ]
        open_world.users.is_away = True
        verdicts.append(open_world.decide(mqtt("alice", "canary-password")))

    assert logs
    assert {type(verdict) for verdict in verdicts} == {Refusal}
    assert not [canary for canary in canaries if canary in repr(logs) + repr(verdicts)]
