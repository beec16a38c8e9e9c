"""One line a request, and one id for all lines of a request."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs
from tornado.platform.asyncio import AsyncIOLoop
from tornado.web import RequestHandler

from tests.web.browser import PASSWORD, Browser
from tests.web.conftest import SECRET
from tests.web.test_framing import AUTHORIZATION, JSON, PLAIN
from tests.web.wire import Answer, Wire, get, post
from tornado_ds.handlers.base import BaseHandler
from tornado_ds.handlers.routes import WebApplication, make_app, make_internal_app
from tornado_ds.listeners import InternalListener
from tornado_ds.services import Services
from tornado_ds.settings import Address, WebhookSettings
from tornado_ds.sockets import listen_on
from tornado_ds.users import User

ID = "0123456789abcdef-from.the_proxy"

pytestmark = pytest.mark.gen_test

from_proxy = pytest.mark.parametrize("overrides", [{"trusted_proxies": ["127.0.0.1"]}], ids=["proxy"])


class TalkingHandler(BaseHandler):
    """Writes a line of its own, now and from a task."""

    async def get(self) -> None:
        log = structlog.get_logger("talking")
        log.info("hello")
        await asyncio.create_task(self._go_on(log))

    async def _go_on(self, log: Any) -> None:
        await asyncio.sleep(0)
        log.info("hello again")


class PlainHandler(RequestHandler):
    """A handler that knows nothing of us."""

    async def get(self) -> None:
        self.write("plain")


@pytest.fixture
def app(services: Services) -> WebApplication:
    """The public application, with handlers of somebody else."""
    return make_app(services, extra_handlers=[(r"/talk", TalkingHandler), (r"/plain", PlainHandler)])


@pytest.fixture
def internal(io_loop: AsyncIOLoop, services: Services) -> Iterator[InternalListener]:
    """The internal listener."""
    listener = InternalListener(make_internal_app(services), listen_on(Address("127.0.0.1", 0), key="internal_listen"))
    io_loop.run_sync(listener.start)
    yield listener
    io_loop.run_sync(listener.drain)


def logged() -> Any:
    """Capture what is logged, with what is bound to it."""
    return capture_logs(processors=[structlog.contextvars.merge_contextvars])


def requests(lines: list[Any]) -> list[Any]:
    """The lines of the access log."""
    return [line for line in lines if line["event"] == "request"]


@pytest.mark.parametrize("path", ["/login", "/talk", "/plain", "/no-such-page"])
async def test_request_is_one_line(browser: Browser, path: str) -> None:
    """Whoever answers: what was asked, how it ended, how long it took, and from where; the query stays out of it."""
    with logged() as lines:
        response = await browser.get(f"{path}?token=canary")

    [line] = requests(lines)
    assert 0 <= line.pop("milliseconds") < 60_000
    assert len(line.pop("request_id")) == 16
    assert line == {
        "event": "request",
        "log_level": "info",
        "method": "GET",
        "path": path,
        "status": response.code,
        "address": "127.0.0.1",
    }
    assert "canary" not in repr(lines)


async def test_lines_of_one_request_carry_its_id(browser: Browser) -> None:
    """The answer names it too, so that what a user reports can be found."""
    with logged() as lines:
        first = await browser.get("/talk")
        second = await browser.get("/talk")

    ids = [response.headers["X-Request-Id"] for response in (first, second)]
    assert len(set(ids)) == 2
    assert [(id, event) for id in ids for event in ("hello", "hello again", "request")] == [
        (line["request_id"], line["event"]) for line in lines
    ]


@from_proxy
async def test_request_keeps_the_id_of_a_trusted_proxy(browser: Browser) -> None:
    """The logs of both can be read side by side; so can the addresses."""
    with logged() as lines:
        response = await browser.get("/login", X_Request_Id=ID, X_Forwarded_For="198.51.100.7")

    assert response.headers["X-Request-Id"] == ID
    assert [(ID, "198.51.100.7")] == [(line["request_id"], line["address"]) for line in requests(lines)]


async def test_request_gets_an_id_of_ours_when_a_stranger_sends_one(browser: Browser) -> None:
    """Otherwise anybody could hide among the lines of somebody else."""
    response = await browser.get("/login", X_Request_Id=ID)

    assert response.headers["X-Request-Id"] != ID


@from_proxy
@pytest.mark.parametrize(
    "given",
    [
        pytest.param("short", id="short"),
        pytest.param("x" * 65, id="long"),
        pytest.param("0123 4567", id="blank"),
        pytest.param("01234567;89", id="other-letters"),
        pytest.param("0123456789\u00e4", id="no-ascii"),
    ],
)
async def test_request_gets_an_id_of_ours_when_the_proxys_is_none(browser: Browser, given: str) -> None:
    """A proxy may hand on what a client made up."""
    response = await browser.get("/login", X_Request_Id=given)

    assert given != response.headers["X-Request-Id"]
    assert len(response.headers["X-Request-Id"]) == 16


@from_proxy
async def test_request_gets_an_id_of_ours_when_there_are_two(browser: Browser, http_port: int) -> None:
    """Which of them would be the proxy's?"""
    async with Wire(http_port) as wire:
        wire.send(get("/login", f"X-Request-Id: {ID}", f"X-Request-Id: {ID}"))
        answer = await wire.answer()

    assert len(answer.headers["x-request-id"]) == 16


async def test_refusal_of_another_origin_says_which(browser: Browser) -> None:
    """With a wrong `public_url` every login fails, and the log says why."""
    with logged() as lines:
        response = await browser.submit("/logout", {}, Sec_Fetch_Site="cross-site", Origin="https://app.example.com")

    assert response.code == 403
    refused, request = lines
    assert refused["event"] == "request refused"
    assert "Sec-Fetch-Site cross-site" == refused["reason"]
    assert "https://app.example.com" == refused["origin"]
    assert refused["request_id"] == request["request_id"]


async def test_probes_are_for_those_who_debug_while_all_is_well(internal: InternalListener) -> None:
    """Monitoring asks every few seconds; only its bad news are news."""
    with logged() as lines:
        for path in ("/healthz", "/metrics", "/readyz"):
            await ask(internal, get(path))

    assert [("debug", 200)] * 3 == [(line["log_level"], line["status"]) for line in requests(lines)]


@pytest.mark.parametrize(
    "overrides",
    [{"webhook": WebhookSettings(secret=SECRET, credentials_login=True)}],  # type: ignore[arg-type]
    ids=["credentials"],
)
async def test_webhook_gives_an_id_to_logins_only(internal: InternalListener, alice: User) -> None:
    """What takes one line needs none; nothing on the connection carries on the id of what was before."""
    wrong = b'{"connectionData": {}, "authData": {"username": "alice", "password": "wrong"}}'
    with logged() as lines:
        async with Wire(internal.port) as wire:
            for body in [wrong] * 6 + [b"{}"]:
                wire.send(post("/check-token", body, *PLAIN))
                await wire.answer()
            wire.send(get("/nothing", AUTHORIZATION) + post("/check-token", b"{}", AUTHORIZATION, JSON))
            await wire.answer()
            await wire.answer()

    refused = [line for line in lines if line["event"] == "connection refused"]
    assert [True] * 6 + [False] * 2 == ["request_id" in line for line in refused]
    [throttled] = [line for line in lines if line["event"] == "login.throttled"]
    assert throttled["request_id"] == refused[5]["request_id"]
    assert PASSWORD not in repr(lines)


async def ask(listener: InternalListener, octets: bytes) -> Answer:
    """Send one request over a connection of its own."""
    async with Wire(listener.port) as wire:
        wire.send(octets)
        return await wire.answer()
