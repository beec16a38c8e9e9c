"""Users whose name and data leave no room in a token: refused in time, or else told kindly."""

from base64 import b64encode
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs
from tornado.platform.asyncio import AsyncIOLoop

from tests.web.browser import PASSWORD, Browser, json_of
from tests.web.conftest import SECRET
from tornado_ds.errors import UserDataError
from tornado_ds.gate import Verdict
from tornado_ds.services import Services
from tornado_ds.settings import TokenSettings, WebhookSettings
from tornado_ds.users import User, UserChanges

# The longest name, in octets, and nearly all the data that a user may have.
NAME = "\U00020bb7" * 128
DATA = {"a": "x" * 2020}

pytestmark = pytest.mark.gen_test


@pytest.fixture
def overrides() -> dict[str, Any]:
    """The longest signature, and as long an issuer and audience as can be set."""
    return {
        "token": TokenSettings(algorithm="RS256", issuer="i" * 128, audience="a" * 128),
        "webhook": WebhookSettings(secret=SECRET, credentials_login=True),  # type: ignore[arg-type]
    }


@pytest.fixture
def stored(io_loop: AsyncIOLoop, services: Services) -> User:
    """A user of another user store, which knows nothing of tokens."""

    async def add() -> User:
        hashed = await services.passwords.hash(PASSWORD)
        await services.users.add([User(NAME, hashed, server_data=DATA)])
        return User(NAME, hashed, server_data=DATA)

    user: User = io_loop.run_sync(add)
    return user


async def test_add_and_change_refuse_data_that_leave_no_room(services: Services, stored: User) -> None:
    """The line says whose data it is about, and what to do."""
    await services.accounts.add(NAME[1:] + "x", PASSWORD)

    with pytest.raises(UserDataError, match="give that user less data"):
        await services.accounts.add("y" + NAME[1:], PASSWORD, server_data=DATA)
    with pytest.raises(UserDataError, match="give that user less data"):
        await services.accounts.change(NAME[1:] + "x", UserChanges(server_data=DATA))
    with pytest.raises(UserDataError, match="give that user less data"):
        await services.accounts.change(NAME, UserChanges(client_data={"a": 1}))


async def test_account_can_be_disabled_and_mended_when_its_data_are_too_long(services: Services, stored: User) -> None:
    """What is wrong with an account must not protect it."""
    disabled = await services.accounts.change(NAME, UserChanges(disabled=True))
    mended = await services.accounts.change(NAME, UserChanges(server_data={}, disabled=False))

    assert disabled.is_disabled
    assert not mended.is_disabled
    assert (await services.accounts.log_in(NAME, PASSWORD)).claims.username == NAME


async def test_login_says_that_it_is_our_trouble_when_no_token_holds_the_data(browser: Browser, stored: User) -> None:
    """No server error, and no advice to try again; the operator reads in the log what to do."""
    with capture_logs() as logs:
        page = await browser.log_in(NAME)
        answer = await browser.send("/handle-login", {"username": NAME, "password": PASSWORD})

    assert (503, 503) == (page.code, answer.code)
    assert "Please tell whoever runs this site." in page.body.decode()
    assert "Retry-After" not in page.headers
    assert "Set-Cookie" not in page.headers
    assert json_of(answer) == {"error": "unavailable"}
    reasons = [entry["reason"] for entry in logs if entry["event"] == "login failed"]
    assert len(reasons) == 2
    assert all("give that user less data" in reason for reason in reasons)


async def test_login_through_deepstream_is_unavailable_when_no_token_holds_the_data(
    services: Services, stored: User
) -> None:
    """The webhook answers from its list."""
    body = orjson.dumps({"connectionData": {}, "authData": {"username": NAME, "password": PASSWORD}})
    credentials = b64encode(f"deepstream:{SECRET}".encode()).decode()

    verdict = services.gate.decide(body, authorization=f"Basic {credentials}", content_type="application/json")

    assert not isinstance(verdict, Verdict)
    assert (await verdict).status == 503


async def test_renewal_is_unavailable_when_data_have_grown_too_long(browser: Browser, services: Services) -> None:
    """The session goes on with the token that it has."""
    await services.accounts.add(NAME, PASSWORD)
    await browser.log_in(NAME)
    await services.users.update(NAME, UserChanges(server_data=DATA))

    answer = await browser.send("/session/renew")

    assert answer.code == 503
    assert (await browser.ask("/session")).code == 200
