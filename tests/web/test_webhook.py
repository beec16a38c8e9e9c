import json
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from tornado.httpclient import HTTPResponse
from tornado.platform.asyncio import AsyncIOLoop

from tests.web.browser import PASSWORD, Browser, json_of
from tests.web.conftest import SECRET
from tornado_ds.handlers.routes import WebApplication, make_app, make_internal_app
from tornado_ds.listeners import InternalListener
from tornado_ds.services import Services
from tornado_ds.sessions import OpenSession
from tornado_ds.settings import Address, WebhookSettings
from tornado_ds.sockets import listen_on
from tornado_ds.users import User

AUTHORIZATION = "Basic " + b64encode(f"deepstream:{SECRET}".encode()).decode()
HEADERS = {"Content-Type": "application/json; charset=utf-8", "Authorization": AUTHORIZATION, "User-Agent": "Needle/3"}
ORIGIN = "http://localhost:8000"

# A redirect or any other 2xx would let a client in, a 404 or 504 would be tried again.
STATUSES = {200, 401, 403, 405, 413, 415, 503}


@pytest.fixture(params=["public", "internal", "internal-listener"])
def place(request: pytest.FixtureRequest) -> str:
    """Each of the two applications in Tornado's server, and the internal one in our own: the webhook is the same."""
    return str(request.param)


@pytest.fixture
def app(place: str, services: Services) -> WebApplication:
    """The application that is asked."""
    return make_app(services) if place == "public" else make_internal_app(services)


@pytest.fixture
def overrides() -> dict[str, Any]:
    """Credentials through deepstream are on, so that both ways are tried."""
    return {"webhook": WebhookSettings(secret=SECRET, credentials_login=True)}  # type: ignore[arg-type]


class Deepstream:
    """A deepstream server that asks about its clients."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    async def ask(self, question: object, **headers: str) -> HTTPResponse:
        """Ask about one client."""
        return await self.post(json.dumps(question).encode(), HEADERS | headers)

    async def ask_about_cookie(self, token: str, *, origin: str = ORIGIN) -> HTTPResponse:
        """Ask about a page's connection."""
        headers = {"cookie": f"theme=dark; access_token={token}", "origin": origin}
        return await self.ask({"connectionData": {"remoteAddress": "203.0.113.9", "headers": headers}, "authData": {}})

    async def ask_about_token(self, token: object) -> HTTPResponse:
        """Ask about a backend's connection."""
        return await self.ask({"connectionData": {"headers": {}}, "authData": {"token": token}})

    async def post(self, body: bytes, headers: dict[str, str], *, path: str = "/check-token") -> HTTPResponse:
        """Send any body."""
        return await self.fetch("POST", headers=headers, path=path, body=body)

    async def fetch(self, method: str, *, path: str = "/check-token", **options: Any) -> HTTPResponse:
        """Send any request."""
        response = await self._browser.fetch(method, path, **options)
        assert response.code in STATUSES
        assert response.headers.get("Location") is None
        assert response.headers.get_list("Set-Cookie") == []
        assert int(response.headers["Content-Length"]) == len(response.body) or method == "HEAD"
        return response


@pytest.fixture
def deepstream(browser: Browser, place: str, app: WebApplication, io_loop: AsyncIOLoop) -> Iterator[Deepstream]:
    """A deepstream server."""
    if place != "internal-listener":
        yield Deepstream(browser)
        return
    listener = InternalListener(app, listen_on(Address("127.0.0.1", 0), key="internal_listen"))
    io_loop.run_sync(listener.start)
    browser.base_url = f"http://127.0.0.1:{listener.port}"
    yield Deepstream(browser)
    io_loop.run_sync(listener.drain)


@pytest.fixture
def opened(services: Services, alice: User, io_loop: AsyncIOLoop) -> OpenSession:
    """A session of alice."""
    opened: OpenSession = io_loop.run_sync(lambda: services.sessions.open(alice))
    return opened


@pytest.mark.gen_test
async def test_webhook_lets_alice_in_when_her_cookie_comes_from_our_page(
    deepstream: Deepstream, opened: OpenSession
) -> None:
    """The answer is all that deepstream reads, as JSON."""
    response = await deepstream.ask_about_cookie(opened.token)

    expires_at = opened.claims.expires_at * 1000
    expected = {
        "id": "alice",
        "username": "alice",
        "clientData": {"colour": "blue", "username": "alice", "expiresAt": expires_at},
        "serverData": {"roles": ["admin"], "sid": opened.session.sid, "version": 1, "expiresAt": expires_at},
    }
    assert (200, expected) == (response.code, json_of(response))
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.gen_test
async def test_webhook_says_in_plain_text_why_not(deepstream: Deepstream, opened: OpenSession) -> None:
    """The code is the whole body, which is all that deepstream 5 to 10 pass on."""
    for expected, response in (
        ("origin_denied", await deepstream.ask_about_cookie(opened.token, origin="https://evil.example")),
        ("session_invalid", await deepstream.ask_about_token("x.y.z")),
        ("not_logged_in", await deepstream.ask({"connectionData": {}, "authData": {}})),
        ("invalid_credentials", await deepstream.ask({"authData": {"username": "alice", "password": "wrong"}})),
    ):
        assert (403, expected) == (response.code, response.body.decode())
        assert response.headers["Content-Type"].startswith("text/plain")


@pytest.mark.gen_test
async def test_webhook_opens_a_session_when_credentials_are_good(deepstream: Deepstream, alice: User) -> None:
    """The token in the answer is good for the next connection."""
    answer = json_of(await deepstream.ask({"authData": {"username": "alice", "password": PASSWORD}}))

    assert answer["token"] == answer["clientData"]["token"]
    assert json_of(await deepstream.ask_about_token(answer["token"]))["id"] == "alice"


@pytest.mark.gen_test
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_webhook_takes_no_other_method(deepstream: Deepstream, opened: OpenSession, method: str) -> None:
    """405 with what is allowed, with and without the secret, never a page."""
    body = json.dumps({"authData": {"token": opened.token}}).encode() if method in ("PUT", "PATCH") else None

    for headers in (HEADERS, {}, {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}):
        response = await deepstream.fetch(method, headers=headers, body=body)
        assert (response.code, response.headers["Allow"]) == (405, "POST")
        assert response.body == (b"" if method == "HEAD" else b"send POST")


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="empty"),
        pytest.param("Basic", id="scheme"),
        pytest.param("Basic " + b64encode(b"deepstream:").decode(), id="no-secret"),
        pytest.param("Basic " + b64encode(b"deepstream:0123456789abcdef0123456789abcdef").decode(), id="other-secret"),
        pytest.param("Bearer " + SECRET, id="bearer"),
        pytest.param("Basic \xff\xfe", id="not-ascii"),
    ],
)
async def test_webhook_says_unauthorized_when_it_is_not_deepstream(
    deepstream: Deepstream, opened: OpenSession, authorization: str | None
) -> None:
    """A good token does not help whoever has not the secret; a browser is not asked twice."""
    headers = {name: value for name, value in HEADERS.items() if name != "Authorization"}
    if authorization is not None:
        headers["Authorization"] = authorization

    response = await deepstream.post(json.dumps({"authData": {"token": opened.token}}).encode(), headers)

    assert (response.code, response.body) == (401, b"unauthorized")
    assert response.headers["WWW-Authenticate"] == 'Basic realm="deepstream"'


@pytest.mark.gen_test
@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "text/json"])
async def test_webhook_says_unsupported_when_it_is_not_json(
    deepstream: Deepstream, opened: OpenSession, content_type: str | None
) -> None:
    """JSON under another name is not read."""
    headers = {"Authorization": AUTHORIZATION} | ({} if content_type is None else {"Content-Type": content_type})

    response = await deepstream.post(json.dumps({"authData": {"token": opened.token}}).encode(), headers)

    assert response.code == 415


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("expected", "size"),
    [
        pytest.param(200, 64 * 1024, id="64-kibibytes"),
        pytest.param(413, 64 * 1024 + 1, id="one-more"),
        pytest.param(413, 65 * 1024, id="65-kibibytes"),
        pytest.param(413, 1024 * 1024, id="mebibyte"),
    ],
)
@pytest.mark.parametrize("is_chunked", [False, True], ids=["with-length", "chunked"])
async def test_webhook_says_too_large_above_64_kibibytes(
    deepstream: Deepstream, opened: OpenSession, expected: int, size: int, is_chunked: bool
) -> None:
    """Whether or not the length is announced, a larger body is not kept; the connection stays in order."""
    body = json.dumps({"authData": {"token": opened.token}}).encode().ljust(size)

    async def produce(write: Callable[[bytes], Awaitable[None]]) -> None:
        for start in range(0, len(body), 10_000):
            await write(body[start : start + 10_000])

    sent: dict[str, Any] = {"body_producer": produce} if is_chunked else {"body": body}
    response = await deepstream.fetch("POST", headers=HEADERS, **sent)

    assert expected == response.code
    assert (await deepstream.ask_about_token(opened.token)).code == 200


@pytest.mark.gen_test
async def test_webhook_looks_at_the_secret_before_the_size(deepstream: Deepstream) -> None:
    """Whatever is sent to it by a stranger is refused, large or not."""
    response = await deepstream.post(b"x" * 70_000, {"Content-Type": "application/json"})

    assert response.code in (401, 413)


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ["/check-token?", "/check-token?x=1", "/check-token?/login?next=/"])
async def test_webhook_answers_whatever_the_query_is(deepstream: Deepstream, opened: OpenSession, path: str) -> None:
    """A query string, which somebody may have put into the URL, leads nowhere else."""
    body = json.dumps({"authData": {"token": opened.token}}).encode()

    assert (await deepstream.post(body, HEADERS, path=path)).code == 200
    assert (await deepstream.post(body, {}, path=path)).code == 401
    assert (await deepstream.fetch("GET", path=path)).code == 405


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[[[[[[", id="unclosed"),
        pytest.param(b"[" * 60_000, id="deep"),
        pytest.param(b'{"authData": {"token": NaN}}', id="nan"),
        pytest.param(b'{"authData": {"token": "\\ud800"}}', id="surrogate"),
        pytest.param(b'{"connectionData": {"headers": {"cookie": ["a"]}}, "authData": 7}', id="wrong-types"),
        pytest.param(b"\xff" * 100, id="binary"),
    ],
)
async def test_webhook_lets_nobody_in_when_the_body_is_garbage(deepstream: Deepstream, body: bytes) -> None:
    """Any body at all is answered with a 403 that says what is missing."""
    response = await deepstream.post(body, HEADERS)

    assert response.code == 403
    assert response.body in (b"not_logged_in", b"session_invalid")


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"X-Forwarded-For": "1.2.3.4"},
        {"Cookie": "access_token=x"},
        {"Accept": "text/html"},
    ],
    ids=lambda headers: next(iter(headers)),
)
async def test_webhook_does_not_mind_headers_of_browsers(
    deepstream: Deepstream, opened: OpenSession, headers: dict[str, str]
) -> None:
    """The guards of pages are not in the way of the webhook."""
    response = await deepstream.ask({"authData": {"token": opened.token}}, **headers)

    assert response.code == 200
