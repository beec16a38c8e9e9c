"""
One auth server, one deepstream server, one browser for all tests of this folder.

Package scope, not session scope: while Playwright's browser is up, no other test could run an event loop.
"""

import json
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from tests.canaries import PASSWORD as PASSWORD
from tests.canaries import WEBHOOK_SECRET
from tests.live import chromium
from tests.live.clients import Client, Driver
from tests.live.servers import AuthServer, Deepstream, free_port

Connect = Callable[..., Client]
NewContext = Callable[..., BrowserContext]

USERS = [
    {"username": "alice", "password": PASSWORD, "roles": ["editor"], "client_data": {"colour": "green"}},
    {"username": "bob", "password": PASSWORD},
]


@pytest.fixture(scope="package")
def secret() -> str:
    """The password of deepstream at the webhook."""
    return WEBHOOK_SECRET


@pytest.fixture(scope="package")
def deepstream_port() -> int:
    """Where deepstream will be; the auth server has to know before it is there."""
    return free_port()


@pytest.fixture(scope="package")
def auth_server(tmp_path_factory: pytest.TempPathFactory, secret: str, deepstream_port: int) -> Iterator[AuthServer]:
    """The auth server with the users alice, an editor, and bob."""
    server = AuthServer(
        tmp_path_factory.mktemp("auth"),
        secret=secret,
        deepstream_port=deepstream_port,
        env={"TORNADO_DS_WEBHOOK__CREDENTIALS_LOGIN": "true"},
    )
    server.cli("seed", "-", text=json.dumps(USERS))
    with server:
        yield server


@pytest.fixture(scope="package")
def deepstream(
    tmp_path_factory: pytest.TempPathFactory, secret: str, deepstream_port: int, auth_server: AuthServer
) -> Iterator[Deepstream]:
    """A deepstream server that asks the auth server."""
    folder = tmp_path_factory.mktemp("deepstream")
    with Deepstream(folder, secret=secret, internal=auth_server.internal, port=deepstream_port) as server:
        yield server


@pytest.fixture(scope="package")
def driver() -> Iterator[Driver]:
    """Where the deepstream clients live."""
    with Driver() as driver:
        yield driver


@pytest.fixture
def connect(driver: Driver, deepstream: Deepstream, auth_server: AuthServer) -> Iterator[Connect]:
    """Connect clients as our own page does, or with another `cookie`, `origin` or `url`; they leave after the test."""
    clients: list[Client] = []

    def connect(
        *, cookie: str | None = None, origin: str | None = auth_server.url, url: str = deepstream.url
    ) -> Client:
        headers = {"cookie": cookie, "origin": origin}
        clients.append(driver.open(url, headers={name: text for name, text in headers.items() if text is not None}))
        return clients[-1]

    yield connect

    for client in clients:
        client.close()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium."""
    executable = chromium.unpack()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=chromium.ARGUMENTS, env=chromium.environment(executable)
        )
        yield browser
        browser.close()


@pytest.fixture
def new_context(browser: Browser) -> Iterator[NewContext]:
    """Open fresh browser profiles, closed after the test; no page may have asked for what its policy forbids."""
    contexts: list[BrowserContext] = []
    said: list[str] = []

    def new_context(**options: object) -> BrowserContext:
        contexts.append(browser.new_context(**options))  # type: ignore[arg-type]
        contexts[-1].set_default_timeout(15_000)
        contexts[-1].on("console", lambda message: said.append(f"{message.page and message.page.url}: {message.text}"))
        return contexts[-1]

    yield new_context

    for context in contexts:
        context.close()
    assert [text for text in said if "Content Security Policy" in text] == []
