"""A real server on a free port for each test, over an SQLite database of its own, with one user: alice."""

import pty
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.platform.asyncio import AsyncIOLoop

from tests.canaries import WEBHOOK_SECRET
from tests.commands import make_secrets
from tests.fakes import ManualClock
from tests.web.browser import PASSWORD, Browser
from tornado_ds.app import open_services
from tornado_ds.handlers.routes import WebApplication, make_app
from tornado_ds.services import Services
from tornado_ds.settings import PasswordSettings, Settings, WebhookSettings
from tornado_ds.users import User

SECRET = WEBHOOK_SECRET

NewBrowser = Callable[[], Browser]
Keyboard = Callable[[str], object]


@pytest.fixture
def overrides() -> dict[str, Any]:
    """Settings that differ from the defaults; test modules override this."""
    return {}


@pytest.fixture
def settings(sqlite_file: Path, overrides: dict[str, Any]) -> Settings:
    """The defaults with cheap passwords, over the database of this test."""
    defaults: dict[str, Any] = {
        "data_dir": sqlite_file.parent,
        "passwords": PasswordSettings(bcrypt_cost=4, allow_weak_cost=True),
        "webhook": WebhookSettings(secret=SECRET),  # type: ignore[arg-type]
    }
    return Settings(**(defaults | overrides))


@pytest.fixture
def services(io_loop: AsyncIOLoop, settings: Settings, clock: ManualClock) -> Iterator[Services]:
    """What the server works with; its feed was read, and is not followed."""
    stack = AsyncExitStack()
    services = io_loop.run_sync(lambda: stack.enter_async_context(open_services(settings, clock=clock)))
    io_loop.run_sync(services.feed.read)
    yield services
    io_loop.run_sync(stack.aclose)


@pytest.fixture
def app(services: Services) -> WebApplication:
    """The public application, which pytest-tornado serves."""
    return make_app(services)


@pytest.fixture
def alice(io_loop: AsyncIOLoop, services: Services) -> User:
    """A user with a good password."""

    async def add() -> User:
        accounts = services.accounts
        return await accounts.add("alice", PASSWORD, server_data={"roles": ["admin"]}, client_data={"colour": "blue"})

    user: User = io_loop.run_sync(add)
    return user


@pytest.fixture
def new_browser(app: WebApplication, http_client: AsyncHTTPClient, base_url: str) -> NewBrowser:
    """Opens a browser that has never been here."""
    # pytest-tornado asks for `app` by itself, but so late that pytest would not see its parameters.
    return lambda: Browser(http_client, base_url)


@pytest.fixture
def browser(new_browser: NewBrowser) -> Browser:
    """A browser that has never been here."""
    return new_browser()


@pytest.fixture
def alices(io_loop: AsyncIOLoop, new_browser: NewBrowser, alice: User) -> Browser:
    """The browser in which alice is logged in."""
    browser = new_browser()
    response = io_loop.run_sync(browser.log_in)
    assert response.code == 303
    return browser


@pytest.fixture
def command_settings(sqlite_file: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings in the environment, where commands find them."""
    monkeypatch.setenv("TORNADO_DS_DATA_DIR", str(sqlite_file.parent))
    monkeypatch.setenv("TORNADO_DS_PASSWORDS__BCRYPT_COST", "4")
    monkeypatch.setenv("TORNADO_DS_PASSWORDS__ALLOW_WEAK_COST", "true")
    settings = Settings()
    # As after a first start.
    make_secrets(settings, now=int(time.time()))
    return settings


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keyboard]:
    """What somebody types at the terminal that is standard input."""
    ours, its = pty.openpty()
    with open(ours, "wb", buffering=0) as keys, open(its, encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        yield lambda typed: keys.write(typed.encode())
