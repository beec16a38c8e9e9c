import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import uvloop
from structlog.testing import capture_logs
from tornado.iostream import StreamClosedError
from tornado.platform.asyncio import AsyncIOLoop

from tests.web.browser import PASSWORD
from tests.web.conftest import SECRET
from tests.web.wire import Answer, Wire, get, post
from tornado_ds.gate import MAX_BODY_BYTES
from tornado_ds.handlers.base import BaseHandler
from tornado_ds.handlers.routes import DRAIN_BYTES, WebApplication, make_app, make_internal_app
from tornado_ds.limits import Limits
from tornado_ds.listeners import InternalListener, Listener, PublicListener
from tornado_ds.services import Services
from tornado_ds.settings import Address, WebhookSettings
from tornado_ds.sockets import listen_on
from tornado_ds.users import User

AUTHORIZATION = "Authorization: Basic " + base64.b64encode(f"deepstream:{SECRET}".encode()).decode()
JSON = "Content-Type: application/json"
PLAIN = (AUTHORIZATION, JSON)
HEAD = f"POST /check-token HTTP/1.1\r\nHost: localhost\r\n{AUTHORIZATION}\r\n{JSON}\r\n".encode()

on_llhttp = pytest.mark.parametrize("server_kind", ["llhttp", "llhttp on uvloop"], indirect=True)


@pytest.fixture(params=["tornado", "llhttp", "llhttp on uvloop"])
def server_kind(request: pytest.FixtureRequest) -> str:
    """Each server that carries the webhook."""
    kind: str = request.param
    return kind


@pytest.fixture
def io_loop(server_kind: str) -> Iterator[AsyncIOLoop]:
    """The event loop of one test."""
    loop = uvloop.new_event_loop() if "uvloop" in server_kind else asyncio.new_event_loop()
    io_loop = AsyncIOLoop(make_current=False, asyncio_loop=loop)
    asyncio.set_event_loop(loop)

    yield io_loop

    asyncio.set_event_loop(None)
    io_loop.close(all_fds=True)


@pytest.fixture
def overrides() -> dict[str, Any]:
    """Logins with a password through the webhook take their time, so their verdicts come later."""
    return {"webhook": WebhookSettings(secret=SECRET, credentials_login=True)}  # type: ignore[arg-type]


@pytest.fixture
def internal_app(services: Services) -> WebApplication:
    """The application of the internal listener."""
    return make_internal_app(services)


@pytest.fixture
def listener(io_loop: AsyncIOLoop, internal_app: WebApplication, server_kind: str) -> Iterator[Listener]:
    """The internal application on either server."""
    kind = PublicListener if server_kind == "tornado" else InternalListener
    listener = kind(internal_app, listen_on(Address("127.0.0.1", 0), key="internal_listen"))
    io_loop.run_sync(listener.start)
    yield listener
    io_loop.run_sync(listener.drain)


@pytest.fixture
def body(io_loop: AsyncIOLoop, services: Services, alice: User) -> bytes:
    """What deepstream asks about a live session of alice."""
    opened = io_loop.run_sync(lambda: services.sessions.open(alice))
    return orjson.dumps({"connectionData": {}, "authData": {"token": opened.token}})


@pytest.fixture
def login(alice: User) -> bytes:
    """What deepstream asks about alice's password."""
    return orjson.dumps({"connectionData": {}, "authData": {"username": "alice", "password": PASSWORD}})


def statuses(octets: bytes) -> list[bytes]:
    """The status of each answer, where bodies hold no status lines."""
    return [part[:3] for part in octets.split(b"HTTP/1.1 ")[1:]]


class FloodHandler(BaseHandler):
    """Writes as fast as it is allowed to, until it has written 16 MiB or nobody reads them."""

    SIZE = 16 * 1024 * 1024

    def initialize(self, services: Services, is_choked: asyncio.Event, is_lost: asyncio.Event) -> None:  # type: ignore[override]
        super().initialize(services)
        self._is_choked, self._is_lost = is_choked, is_lost

    async def get(self) -> None:
        try:
            for _ in range(self.SIZE // 65_536):
                self.write(b"x" * 65_536)
                flushed = self.flush()
                if not flushed.done():
                    self._is_choked.set()
                await flushed
        except StreamClosedError:
            self._is_lost.set()


class SlowHandler(BaseHandler):
    """Answers later than any client of `SHORT` limits may ask."""

    async def get(self) -> None:
        await asyncio.sleep(2 * (SHORT.idle + SHORT.tick))


@pytest.fixture
def is_choked() -> asyncio.Event:
    """Set once `FloodHandler` has to wait."""
    return asyncio.Event()


@pytest.fixture
def is_lost() -> asyncio.Event:
    """Set once `FloodHandler` has nobody left to write to."""
    return asyncio.Event()


@pytest.fixture
def impatient_port(
    io_loop: AsyncIOLoop,
    services: Services,
    server_kind: str,
    is_choked: asyncio.Event,
    is_lost: asyncio.Event,
    limits: Limits,
) -> Iterator[int]:
    """The port of a server with *limits*, a `FloodHandler` and a `SlowHandler`."""
    flood = ("/flood", FloodHandler, {"is_choked": is_choked, "is_lost": is_lost})
    app = make_app(services, [flood, ("/slow", SlowHandler)])
    kind = PublicListener if server_kind == "tornado" else InternalListener
    listener = kind(app, listen_on(Address("127.0.0.1", 0), key="listen"), limits=limits)
    io_loop.run_sync(listener.start)
    yield listener.port
    io_loop.run_sync(listener.drain)


async def ask(listener: Listener, request: bytes) -> Answer:
    """The answer to one request."""
    async with Wire(listener.port) as wire:
        wire.send(request)
        return await wire.answer()


# What is well-formed


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "head",
    [
        pytest.param("POST /check-token HTTP/1.1\r\nHost: a\r\n{}", id="plain"),
        pytest.param("POST /check-token?a=b HTTP/1.1\r\nHost: a\r\n{}", id="query"),
        pytest.param("POST http://localhost:8001/check-token HTTP/1.1\r\nHost: a\r\n{}", id="absolute-form"),
        pytest.param("POST HTTP://a/check-token?x HTTP/1.1\r\nHost: a\r\n{}", id="absolute-form-upper-case"),
        pytest.param("\r\nPOST /check-token HTTP/1.1\r\nHost: a\r\n{}", id="empty-line-before"),
        pytest.param("POST /check-token HTTP/1.1\r\nHost: a\r\nX:\r\n{}", id="empty-header"),
        pytest.param("POST /check-token HTTP/1.1\r\nHost: a\r\nX: \x80\xff\r\n{}", id="obs-text"),
        pytest.param("POST /check-token HTTP/1.1\r\nHost: a\r\nX: a\r\nX: b\r\n{}", id="repeated-header"),
        pytest.param("POST /check-token HTTP/1.1\r\nHost: [::1]:8001\r\n{}", id="ipv6-host"),
        pytest.param(
            "POST /check-token HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n{}", id="upgrade"
        ),
        pytest.param("POST /check-token HTTP/1.1\r\nHost: a\r\nExpect: something\r\n{}", id="odd-expectation"),
        pytest.param("POST /check-token HTTP/1.0\r\n{}", id="http-1.0"),
    ],
)
async def test_check_is_allowed_when_the_head_is_well_formed(listener: Listener, body: bytes, head: str) -> None:
    """Whatever RFC 9112 allows before the body changes nothing about the verdict."""
    headers = f"{AUTHORIZATION}\r\n{JSON}\r\nContent-Length: {len(body)}\r\n\r\n"

    answer = await ask(listener, head.format(headers).encode("latin-1") + body)

    assert answer.status == 200
    assert orjson.loads(answer.body)["id"] == "alice"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(
            "content-type:application/json\r\nAUTHORIZATION:\t{0} \r\nContent-Length: {1}", id="case-and-blanks"
        ),
        pytest.param("Content-Type: application/json\r\nAuthorization: {0}\r\nContent-Length: 000{1}", id="zeros"),
    ],
)
async def test_check_is_allowed_when_headers_are_written_differently(
    listener: Listener, body: bytes, headers: str
) -> None:
    """Names have no case, and blanks around a value do not count."""
    lines = headers.format(AUTHORIZATION.removeprefix("Authorization: "), len(body))

    answer = await ask(listener, f"POST /check-token HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n".encode() + body)

    assert answer.status == 200


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(b"%x\r\n", b"\r\n0\r\n\r\n", id="one-chunk"),
        pytest.param(b"%X\r\n", b"\r\n00\r\n\r\n", id="upper-case"),
    ],
)
async def test_check_is_allowed_when_the_body_is_chunked(
    listener: Listener, body: bytes, before: bytes, after: bytes
) -> None:
    """A body of unknown length comes in chunks, and the connection goes on behind them."""
    chunked = before % len(body) + body + after
    async with Wire(listener.port) as wire:
        wire.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked + get("/healthz"))
        first, second = await wire.answer(), await wire.answer()

    assert (first.status, second.status) == (200, 200)
    assert second.body == b'{"status":"alive"}'


@pytest.mark.gen_test
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
async def test_check_is_allowed_when_every_octet_comes_alone(listener: Listener, body: bytes, is_chunked: bool) -> None:
    """Where packets begin and end means nothing."""
    request = HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    async with Wire(listener.port) as wire:
        for octet in request if is_chunked else post("/check-token", body, *PLAIN):
            wire.send(bytes([octet]))
            await asyncio.sleep(0)
        answer = await wire.answer()

    assert answer.status == 200


@on_llhttp
@pytest.mark.gen_test
async def test_check_is_answered_when_the_client_has_closed_its_half(listener: Listener, body: bytes) -> None:
    """Who has said all can still listen."""
    async with Wire(listener.port) as wire:
        wire.send(post("/check-token", body, *PLAIN))
        wire.writer.write_eof()
        octets = await wire.rest()

    assert statuses(octets) == [b"200"]


# What is not


HOST = b"Host: localhost\r\n"
START = b"POST /check-token HTTP/1.1\r\n" + HOST
LENGTH = b"Content-Length: 2\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"

MALFORMED = [
    pytest.param(b"nonsense\r\n\r\n", id="no-request-line"),
    pytest.param(b"POST /check-token\r\n" + HOST + b"\r\n", id="no-version"),
    pytest.param(b"POST  /check-token HTTP/1.1\r\n" + HOST + b"\r\n", id="two-blanks"),
    pytest.param(b"POST /check-token HTTP/1.1 \r\n" + HOST + b"\r\n", id="blank-behind-version"),
    pytest.param(b"POST /check-token HTTP/2.0\r\n" + HOST + b"\r\n", id="version-2"),
    pytest.param(b"POST /check-token HTTP/1.2\r\n" + HOST + b"\r\n", id="version-1.2"),
    pytest.param(b"POST /check-token HTTP/1.10\r\n" + HOST + b"\r\n", id="version-1.10"),
    pytest.param(b"POST /check-token http/1.1\r\n" + HOST + b"\r\n", id="version-lower-case"),
    pytest.param(b"POST /check-token\0 HTTP/1.1\r\n" + HOST + b"\r\n", id="target-with-nul"),
    pytest.param(START + b" folded: a\r\n\r\n", id="first-line-folded"),
    pytest.param(START + b"A: b\r\n c\r\n\r\n", id="folded"),
    pytest.param(START + b"A: b\r\n\tc\r\n\r\n", id="folded-with-tab"),
    pytest.param(START + b"A: b\rContent-Length: 2\r\n\r\n", id="bare-cr"),
    pytest.param(START + b"A : b\r\n\r\n", id="blank-before-colon"),
    pytest.param(START + b": b\r\n\r\n", id="no-name"),
    pytest.param(START + b"A\r\n\r\n", id="no-colon"),
    pytest.param(START + b"A\xff: b\r\n\r\n", id="name-not-ascii"),
    pytest.param(START + b"A: \0\r\n\r\n", id="nul"),
    pytest.param(START + b"A: \x7f\r\n\r\n", id="control-character"),
    pytest.param(START + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", id="two-lengths"),
    pytest.param(START + b"Content-Length: 2, 1\r\n\r\n{}", id="list-of-lengths"),
    pytest.param(START + b"Content-Length: +2\r\n\r\n{}", id="length-with-plus"),
    pytest.param(START + b"Content-Length: -2\r\n\r\n{}", id="length-negative"),
    pytest.param(START + b"Content-Length: 0x2\r\n\r\n{}", id="length-hexadecimal"),
    pytest.param(START + b"Content-Length: 2_0\r\n\r\n{}", id="length-with-underscore"),
    pytest.param(START + b"Content-Length: 2 2\r\n\r\n{}", id="length-with-blank"),
    pytest.param(START + b"Content-Length:\r\n\r\n{}", id="length-empty"),
    pytest.param(START + b"Content-Length: \xb2\r\n\r\n{}", id="length-superscript"),
    pytest.param(START + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n{}", id="length-enormous"),
    pytest.param(START + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n{}", id="length-of-thousands-of-digits"),
    pytest.param(START + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", id="same-length-twice"),
    pytest.param(START + b"Content-Length: 2, 2\r\n\r\n{}", id="same-length-in-a-list"),
    pytest.param(START + LENGTH + CHUNKED + b"\r\n0\r\n\r\n", id="length-and-chunked"),
    pytest.param(START + CHUNKED + LENGTH + b"\r\n0\r\n\r\n", id="chunked-and-length"),
    pytest.param(START + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n", id="chunked-twice"),
    pytest.param(b"POST /check-token HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n0\r\n\r\n", id="chunked-in-http-1.0"),
    pytest.param(START + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="gzip-and-chunked"),
    pytest.param(START + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", id="chunked-and-gzip"),
    pytest.param(START + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", id="unknown-coding"),
    pytest.param(START + b"Transfer-Encoding: identity\r\n\r\n", id="identity"),
    pytest.param(START + b"Transfer-Encoding:\r\n\r\n", id="coding-empty"),
    pytest.param(START + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", id="coding-behind-vertical-tab"),
    pytest.param(START + CHUNKED + b"\r\n-2\r\n{}\r\n0\r\n\r\n", id="chunk-negative"),
    pytest.param(START + CHUNKED + b"\r\n+2\r\n{}\r\n0\r\n\r\n", id="chunk-with-plus"),
    pytest.param(START + CHUNKED + b"\r\n0x2\r\n{}\r\n0\r\n\r\n", id="chunk-with-0x"),
    pytest.param(START + CHUNKED + b"\r\n2 \r\n{}\r\n0\r\n\r\n", id="chunk-with-blank"),
    pytest.param(START + CHUNKED + b"\r\n\r\n{}\r\n0\r\n\r\n", id="chunk-without-size"),
    pytest.param(START + CHUNKED + b"\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n", id="chunk-enormous"),
    pytest.param(START + CHUNKED + b"\r\n2\r\n{}}\r\n0\r\n\r\n", id="chunk-longer-than-its-size"),
    pytest.param(START + CHUNKED + b"\r\n2\r\n{}\n0\r\n\r\n", id="chunk-ends-with-lf"),
    pytest.param(START + CHUNKED + b"\r\n2\r\n{}\r\n0\r\n\n\n", id="chunks-end-with-lf"),
]

# Tornado 6.6 takes these, or hangs up without a word; its own parser is not ours to change.
MALFORMED_FOR_LLHTTP = [
    pytest.param(b"POST /check-token\xff HTTP/1.1\r\n" + HOST + b"\r\n", id="target-not-ascii"),
    pytest.param(START.replace(b"\r\n", b"\n") + b"\n", id="bare-lf"),
    pytest.param(START + b"A: b\nContent-Length: 2\r\n\r\n{}", id="one-bare-lf"),
    pytest.param(START + b"\nGET /healthz HTTP/1.1\r\n" + HOST + b"\r\n", id="head-ends-with-lf"),
    pytest.param(b"FETCH /check-token HTTP/1.1\r\n" + HOST + b"\r\n", id="unknown-method"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="tls"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="http-2-preface"),
    pytest.param(START + b"A: " + b"a" * 17_000, id="head-too-long"),
    pytest.param(START + b"A: " + b"a" * 16_400 + b"\r\n\r\n", id="head-a-little-too-long"),
]

MALFORMED_HOSTS = [
    pytest.param(b"GET %b HTTP/1.1\r\n\r\n", id="none"),
    pytest.param(b"GET %b HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", id="two"),
    pytest.param(b"GET %b HTTP/1.1\r\nHost: a, b\r\n\r\n", id="list"),
    pytest.param(b"GET %b HTTP/1.1\r\nHost: a/b\r\n\r\n", id="slash"),
    pytest.param(b"GET %b HTTP/1.1\r\nHost: a@b\r\n\r\n", id="at"),
    pytest.param(b"GET %b HTTP/1.1\r\nHost: a\xff\r\n\r\n", id="not-ascii"),
    pytest.param(b"GET %b HTTP/1.1\r\nHost: a:" + b"9" * 5_000 + b"\r\n\r\n", id="port-of-thousands-of-digits"),
    pytest.param(b"GET %b HTTP/1.0\r\nHost: a:" + b"9" * 5_000 + b"\r\n\r\n", id="the-same-in-http-1.0"),
    pytest.param(b"GET %b HTTP/1.1\r\nHost: " + b"a" * 300 + b"\r\n\r\n", id="longer-than-any-name"),
]


@pytest.mark.gen_test
@pytest.mark.parametrize("request_octets", MALFORMED)
async def test_connection_is_closed_with_400_when_a_request_is_malformed(
    listener: Listener, request_octets: bytes
) -> None:
    """What may be read in two ways is not read at all, and nothing behind it is."""
    async with Wire(listener.port) as wire:
        wire.send(request_octets + get("/healthz"))
        octets = await wire.rest()

    assert statuses(octets) == [b"400"]
    assert b"\r\nConnection: close\r\n" in octets


@pytest.mark.gen_test
@on_llhttp
@pytest.mark.parametrize("request_octets", MALFORMED_FOR_LLHTTP)
async def test_connection_is_closed_with_400_when_llhttp_is_stricter(listener: Listener, request_octets: bytes) -> None:
    """The internal listener refuses these too."""
    async with Wire(listener.port) as wire:
        wire.send(request_octets)
        octets = await wire.rest()

    assert statuses(octets) == [b"400"]
    assert b"\r\nConnection: close\r\n" in octets


@pytest.mark.gen_test
@pytest.mark.parametrize("path", [b"/healthz", b"/check-token"])
@pytest.mark.parametrize("request_octets", MALFORMED_HOSTS)
async def test_connection_is_closed_with_400_when_the_host_is_in_doubt(
    listener: Listener, request_octets: bytes, path: bytes
) -> None:
    """HTTP/1.1 wants one Host, and no request has one that is no host."""
    async with Wire(listener.port) as wire:
        wire.send(request_octets.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") % path)
        octets = await wire.rest()

    assert statuses(octets) == [b"400"]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "host", ["", ":", ":80", "a:", "a:x", "a:99999", "[", "]", "[::1", "[::1]:x", "[::g]", "%zz", "1:2:3"]
)
@pytest.mark.parametrize("origin", ["http://[", "http://a:99999", "http://a:x", "https://[::g]:1"])
async def test_request_is_answered_in_order_when_its_host_is_odd(listener: Listener, host: str, origin: str) -> None:
    """What passes for a host makes nobody fail who takes it apart, or compares it with an origin."""
    request = f"POST /healthz HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nContent-Length: 0\r\n\r\n".encode()

    answer = await ask(listener, request)

    assert answer.status in (400, 403, 405)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("request_octets", "status"),
    [
        pytest.param(get("*", method="OPTIONS"), 404, id="options"),
        pytest.param(get("http://[/", method="GET"), 404, id="no-url"),
        pytest.param(get("http://localhost", method="GET"), 404, id="url-without-a-path"),
        pytest.param(get("/%00", method="GET"), 404, id="escaped-nul"),
        pytest.param(get("//check-token", method="GET"), 404, id="two-slashes"),
        pytest.param(get("/check-token/", method="GET"), 404, id="path-behind"),
        pytest.param(get("localhost:8001", method="CONNECT"), 405, id="connect"),
        pytest.param(get("/healthz", method="TRACE"), 405, id="trace"),
        pytest.param(get("/healthz", method="DELETE"), 405, id="delete"),
    ],
)
async def test_request_is_refused_in_order_when_its_target_is_odd(
    listener: Listener, request_octets: bytes, status: int
) -> None:
    """Every target that can be read is answered like any other, and never with a redirect."""
    answer = await ask(listener, request_octets)

    assert answer.status == status


# One request after the other


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ["/check-token", "/healthz"])
@pytest.mark.parametrize(
    ("version", "headers", "connection"),
    [
        pytest.param("1.1", (), "", id="1.1"),
        pytest.param("1.1", ("Connection: keep-alive",), "", id="1.1-keep-alive"),
        pytest.param("1.1", ("Connection: close",), "close", id="1.1-close"),
        pytest.param("1.0", (), "close", id="1.0"),
        pytest.param("1.0", ("Connection: keep-alive",), "keep-alive", id="1.0-keep-alive"),
    ],
)
async def test_connection_stays_or_closes_as_asked(
    listener: Listener, body: bytes, path: str, version: str, headers: tuple[str, ...], connection: str
) -> None:
    """A connection stays in HTTP/1.1 unless somebody says otherwise, and in HTTP/1.0 only if somebody does."""
    is_check = path == "/check-token"
    request = post(path, body, *PLAIN, *headers, version=version) if is_check else get(path, *headers, version=version)
    async with Wire(listener.port) as wire:
        wire.send(request)
        first = await wire.answer()
        wire.send(request)
        second = await wire.rest() if connection == "close" else (await wire.answer()).status

    assert first.status == 200
    # A client of HTTP/1.0 takes the connection for closed anyway.
    assert first.headers.get("connection", "").lower() in {connection, "" if version == "1.0" else connection}
    assert second == (b"" if connection == "close" else 200)


@pytest.mark.gen_test
async def test_answers_come_in_order_when_requests_are_pipelined(listener: Listener, body: bytes, login: bytes) -> None:
    """A verdict that takes its time holds up what was asked behind it, and only that."""
    requests = [
        post("/check-token", login, *PLAIN),
        post("/check-token", body, *PLAIN),
        get("/healthz"),
        post("/check-token", b"{}", *PLAIN),
        post("/check-token", login, *PLAIN),
        get("/check-token"),
        post("/check-token", body, *PLAIN, "Connection: close"),
        get("/healthz"),
    ]
    async with Wire(listener.port) as wire:
        wire.send(b"".join(requests))
        octets = await wire.rest()

    assert statuses(octets) == [b"200", b"200", b"200", b"403", b"200", b"405", b"200"]
    assert [part.count(b'"token":') for part in octets.split(b"HTTP/1.1 ")[1:]] == [2, 0, 0, 0, 2, 0, 0]


@pytest.mark.gen_test
async def test_body_is_asked_for_when_the_client_expects_it(listener: Listener, body: bytes) -> None:
    """A client that sends `Expect: 100-continue` hears that it may go on."""
    head, _, _ = post("/check-token", body, *PLAIN, "Expect: 100-continue").partition(b"\r\n\r\n")
    async with Wire(listener.port) as wire:
        wire.send(head + b"\r\n\r\n")
        interim = await wire.answer()
        wire.send(body)
        answer = await wire.answer()

    assert (interim.status, answer.status) == (100, 200)


@pytest.mark.gen_test
@pytest.mark.parametrize(("path", "status"), [("/healthz", 200), ("/check-token", 405), ("/nothing", 404)])
async def test_answer_has_no_body_when_the_request_is_head(listener: Listener, path: str, status: int) -> None:
    """HEAD gets the headers of GET, and the next answer begins right behind them."""
    async with Wire(listener.port) as wire:
        wire.send(get(path, method="HEAD") + get("/healthz"))
        head, body = await wire.answer(to="HEAD"), await wire.answer()

    assert (head.status, body.status) == (status, 200)
    assert int(head.headers["content-length"]) > 0


# Too much


@pytest.mark.gen_test
@pytest.mark.parametrize("is_chunked", [pytest.param(False, id="length"), pytest.param(True, id="chunked")])
@pytest.mark.parametrize("path", ["/check-token", "/healthz"])
async def test_request_is_refused_when_its_body_is_too_large(listener: Listener, path: str, is_chunked: bool) -> None:
    """A body of up to 4 MiB is read and dropped, so that the client can hear 413."""
    body = b"x" * (MAX_BODY_BYTES + 1 if is_chunked else 1024 * 1024)
    chunked = b"\r\n".join([get(path, *PLAIN, "Transfer-Encoding: chunked", method="POST") + b"%x" % len(body), body])
    async with Wire(listener.port) as wire:
        wire.send(chunked + b"\r\n0\r\n\r\n" if is_chunked else post(path, body, *PLAIN))
        answer = await wire.answer()

    assert answer.status == 413


@pytest.mark.gen_test
async def test_request_is_refused_at_once_when_its_body_is_far_too_large(listener: Listener) -> None:
    """What nobody will read to the end is not waited for."""
    head = get("/check-token", *PLAIN, f"Content-Length: {DRAIN_BYTES + 1}", method="POST")
    async with Wire(listener.port) as wire:
        wire.send(head + b"x" * 10_000)
        answer, rest = await wire.answer(), await wire.rest()

    assert (answer.status, rest) == (413, b"")


@on_llhttp
@pytest.mark.gen_test
async def test_check_is_answered_while_a_body_of_much_work_is_taken(listener: Listener, body: bytes) -> None:
    """A stranger's body that ends a line all the time does not stop the server; its secret is looked at in the end."""
    head = get("/check-token", "Transfer-Encoding: chunked", method="POST")
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (60_000, b"\r\n\r\n" * 15_000)
    order: list[int] = []

    async def ask(wire: Wire, request: bytes) -> None:
        wire.send(request)
        order.append((await wire.answer()).status)

    async with Wire(listener.port) as stranger, Wire(listener.port) as other:
        other.send(get("/healthz"))
        await other.answer()
        refused = asyncio.create_task(ask(stranger, head + chunks))
        await asyncio.sleep(0)
        await ask(other, post("/check-token", body, *PLAIN))
        await refused

    assert order == [200, 401]


@pytest.mark.gen_test
async def test_check_is_allowed_when_the_body_is_as_large_as_it_may_be(listener: Listener, body: bytes) -> None:
    """64 KiB are taken."""
    padded = body.ljust(MAX_BODY_BYTES)

    answer = await ask(listener, post("/check-token", padded, *PLAIN))

    assert answer.status == 200


@pytest.mark.gen_test
async def test_check_is_allowed_when_the_head_is_large(listener: Listener, body: bytes) -> None:
    """15 KiB of headers are taken."""
    answer = await ask(listener, post("/check-token", body, *PLAIN, "Cookie: " + "a" * 15_000))

    assert answer.status == 200


# The webhook's answers

COMMON = {
    "content-type": "text/plain; charset=utf-8",
    "content-security-policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("request_octets", "status", "special"),
    [
        pytest.param(post("/check-token", b"{}", *PLAIN), 403, {}, id="denied"),
        pytest.param(
            post("/check-token", b"{}", JSON), 401, {"www-authenticate": 'Basic realm="deepstream"'}, id="stranger"
        ),
        pytest.param(post("/check-token", b"{}", AUTHORIZATION), 415, {}, id="not-json"),
        pytest.param(post("/check-token", b"{}", AUTHORIZATION, *PLAIN), 401, {}, id="two-authorizations"),
        pytest.param(get("/check-token"), 405, {"allow": "POST"}, id="get"),
        pytest.param(get("/check-token", method="PUT"), 405, {"allow": "POST"}, id="put"),
        pytest.param(get("/check-token", method="POST"), 401, {}, id="no-body"),
    ],
)
async def test_answer_carries_our_headers_whatever_the_verdict(
    listener: Listener, request_octets: bytes, status: int, special: dict[str, str]
) -> None:
    """Both servers write the same answer."""
    answer = await ask(listener, request_octets)

    length = {"content-length": str(len(answer.body))}
    challenge = {"www-authenticate": 'Basic realm="deepstream"'} if status == 401 else {}
    assert (answer.status, answer.headers) == (status, COMMON | length | special | challenge)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "request_octets",
    [
        pytest.param(b"nonsense\r\n\r\n", id="for-the-parser"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="for-the-application"),
        pytest.param(START + CHUNKED + b"\r\nnonsense\r\n", id="in-the-body"),
    ],
)
@pytest.mark.parametrize(
    ("overrides", "more"),
    [
        pytest.param({}, {}, id="http"),
        pytest.param(
            {"public_url": "https://localhost"},
            {"strict-transport-security": "max-age=31536000"},
            id="https",
        ),
    ],
)
async def test_answer_carries_our_headers_when_a_request_is_malformed(
    listener: Listener, request_octets: bytes, overrides: dict[str, Any], more: dict[str, str]
) -> None:
    """All answers means that one too, whoever finds the fault."""
    answer = await ask(listener, request_octets)

    expected = COMMON | {"connection": "close", "content-length": "11"} | more
    assert (answer.status, answer.headers, answer.body) == (400, expected, b"bad request")


@pytest.mark.gen_test
async def test_refusal_is_logged_and_an_answer_is_not(listener: Listener, body: bytes) -> None:
    """The access log names the reason of each refusal; the many others would drown it."""
    with capture_logs() as logs:
        await ask(listener, post("/check-token", body, *PLAIN))
        await ask(listener, post("/check-token", b"{}", AUTHORIZATION))

    assert [entry for entry in logs if entry["log_level"] != "debug"] == [
        {"event": "connection refused", "log_level": "info", "status": 415, "code": "unsupported_media_type"}
    ]


@pytest.mark.gen_test
async def test_refusal_is_one_line_with_code_origin_and_address(listener: Listener, services: Services) -> None:
    """That is all that there is to say of it; a page of a stranger is a warning."""
    opened = await services.sessions.open(User("alice", "hash"))
    headers = {"cookie": f"access_token={opened.token}", "origin": "https://evil.example\r\nevent=ready"}
    connection = {"remoteAddress": "203.0.113.9", "headers": headers}
    with capture_logs() as logs:
        await ask(listener, post("/check-token", orjson.dumps({"connectionData": connection}), *PLAIN))

    assert [line for line in logs if line["event"] != "session.opened"] == [
        {
            "event": "connection refused",
            "log_level": "warning",
            "status": 403,
            "code": "origin_denied",
            "origin": "https://evil.example\\r\\nevent=ready",
            "address": "203.0.113.9",
        }
    ]


# Answers that stream, and the end


@pytest.mark.gen_test
async def test_followers_get_events_as_they_come(listener: Listener, services: Services, alice: User) -> None:
    """An answer without an end comes in chunks, each at once."""
    opened = await services.sessions.open(alice)
    async with Wire(listener.port) as wire:
        wire.send(get("/session-events", AUTHORIZATION))
        head = await wire.reader.readuntil(b"\r\n\r\n")
        await wire.chunk()
        await services.sessions.end(opened.claims.sid, reason="logout")
        await services.feed.read()
        event = await wire.chunk()

    assert b"\r\nTransfer-Encoding: chunked\r\n" in head
    assert b"event: session.ended" in event


@pytest.mark.gen_test
async def test_follower_is_forgotten_when_it_hangs_up(listener: Listener, internal_app: WebApplication) -> None:
    """A request whose client has gone is no request in flight."""
    async with Wire(listener.port) as wire:
        wire.send(get("/session-events", AUTHORIZATION))
        await wire.reader.readuntil(b"\r\n\r\n")
        in_flight = len(internal_app.in_flight)
    await internal_app.in_flight.wait_until_quiet(0.01)

    assert in_flight == 1


@pytest.mark.gen_test
async def test_request_in_flight_is_answered_when_the_server_stops(listener: Listener, login: bytes) -> None:
    """A server that stops takes no more connections, closes idle ones, and answers what it was asked."""
    port = listener.port
    async with Wire(port) as idle, Wire(port) as busy:
        idle.send(get("/healthz"))
        await idle.answer()
        busy.send(post("/check-token", login, *PLAIN, "Expect: 100-continue"))
        await busy.answer()
        draining = asyncio.ensure_future(listener.drain())
        answer, rest = await busy.answer(), await busy.rest()
        left = await idle.rest()
        await draining

    assert (answer.status, rest, left) == (200, b"", b"")
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", port)


# What no peer may exceed


SHORT = Limits(idle=0.3, body=0.3, write=0.3, tick=0.05)


@pytest.mark.gen_test
@pytest.mark.parametrize("limits", [SHORT])
@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"POST /check-token HTTP/1.1\r\nHost: a", id="half-a-head"),
        pytest.param(HEAD + b"Content-Length: 10\r\n\r\n{}", id="half-a-body"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{", id="half-a-chunk"),
        pytest.param(HEAD + b"Content-Length: 100000\r\n\r\n{}", id="part-of-a-large-body"),
        pytest.param(get("/healthz"), id="one-request"),
    ],
)
async def test_connection_is_closed_when_nothing_more_comes(impatient_port: int, limits: Limits, octets: bytes) -> None:
    """Waiting for a request, for the rest of its head or of its body has an end."""
    async with Wire(impatient_port) as wire:
        wire.send(octets)
        answers = await wire.rest()

    assert statuses(answers) == ([b"401"] if b"healthz" in octets else [])


@pytest.mark.gen_test
@pytest.mark.parametrize("limits", [SHORT])
async def test_connection_stays_when_it_is_the_server_that_takes_its_time(impatient_port: int, limits: Limits) -> None:
    """What a client may take for its request does not bound the answer."""
    async with Wire(impatient_port) as wire:
        wire.send(get("/slow"))
        answer = await wire.answer()

    assert answer.status == 200


@on_llhttp
@pytest.mark.gen_test
@pytest.mark.parametrize("limits", [SHORT])
async def test_connection_is_closed_when_its_client_does_not_read(
    impatient_port: int, limits: Limits, is_lost: asyncio.Event
) -> None:
    """An answer that nobody takes does not stay in memory."""
    async with Wire(impatient_port) as wire:
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        wire.send(get("/flood"))

        await is_lost.wait()


@on_llhttp
@pytest.mark.gen_test
@pytest.mark.parametrize("limits", [Limits()])
async def test_handler_waits_when_its_client_reads_slowly(
    impatient_port: int, limits: Limits, is_choked: asyncio.Event
) -> None:
    """No more is written than there is room for, and all of it arrives."""
    async with Wire(impatient_port) as wire:
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        wire.send(get("/flood"))
        await is_choked.wait()
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        answer = await wire.answer()

    assert len(answer.body) == FloodHandler.SIZE


@on_llhttp
@pytest.mark.gen_test
@pytest.mark.parametrize("limits", [Limits()])
async def test_handler_hears_when_its_client_hangs_up(
    impatient_port: int, limits: Limits, is_choked: asyncio.Event, is_lost: asyncio.Event
) -> None:
    """A flush to a client that has gone fails, as with Tornado's server."""
    async with Wire(impatient_port) as wire:
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        wire.send(get("/flood"))
        await is_choked.wait()

    await is_lost.wait()


@on_llhttp
@pytest.mark.gen_test
@pytest.mark.parametrize("limits", [Limits()])
async def test_all_answers_come_when_many_requests_are_pipelined(impatient_port: int, limits: Limits) -> None:
    """A client may ask faster than it reads."""
    async with Wire(impatient_port) as wire:
        wire.send(post("/check-token", b"{}", *PLAIN) * 5_000 + get("/check-token", "Connection: close"))
        octets = await wire.rest()

    assert statuses(octets) == [b"403"] * 5_000 + [b"405"]


@on_llhttp
@pytest.mark.gen_test
@pytest.mark.parametrize("limits", [Limits(connections=2)])
async def test_connection_is_closed_at_once_when_there_are_too_many(impatient_port: int, limits: Limits) -> None:
    """Beyond the limit nobody is served, until somebody leaves."""
    async with Wire(impatient_port) as stays:
        async with Wire(impatient_port) as leaves:
            leaves.send(get("/check-token"))
            await leaves.answer()
            async with Wire(impatient_port) as third:
                refused = await third.rest()
        stays.send(get("/check-token"))
        await stays.answer()
        async with Wire(impatient_port) as fourth:
            fourth.send(get("/check-token"))
            served = await fourth.answer()

    assert refused == b""
    assert served.status == 405


@on_llhttp
@pytest.mark.gen_test
async def test_busy_client_hears_that_the_server_stops(listener: Listener, body: bytes) -> None:
    """A request that was on its way while the server began to stop is answered, with a word about it."""
    async with Wire(listener.port) as wire:
        wire.send(get("/healthz"))
        await wire.answer()
        draining = asyncio.ensure_future(listener.drain())
        await asyncio.sleep(0)
        wire.send(post("/check-token", body, *PLAIN))
        answer, rest = await wire.answer(), await wire.rest()
        await draining

    assert (answer.status, answer.headers.get("connection"), rest) == (200, "close", b"")


@pytest.mark.gen_test
async def test_server_stops_when_its_followers_were_told(listener: Listener, services: Services) -> None:
    """A stream that has come to its end holds nothing up."""
    async with Wire(listener.port) as wire:
        wire.send(get("/session-events", AUTHORIZATION))
        await wire.reader.readuntil(b"\r\n\r\n")
        services.feed.close()
        await listener.drain()
        octets = await wire.rest()

    assert octets.endswith(b"\r\n0\r\n\r\n")
