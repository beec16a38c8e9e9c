"""Whatever ends a session or changes a user counts at the very next page, request and connection."""

from collections.abc import Awaitable, Callable

import pytest

from tests.web.browser import PASSWORD, Browser, json_of
from tests.web.test_webhook import Deepstream
from tornado_ds.services import Services
from tornado_ds.users import UserChanges

End = Callable[[Services, Browser], Awaitable[object]]

NEW_PASSWORD = "another horse, another staple"


async def log_out(services: Services, browser: Browser) -> None:
    """The person logs out, in a browser that keeps the cookie all the same."""
    kept = dict(browser.cookies)
    await browser.submit("/logout", {})
    browser.cookies = kept


async def change_password(services: Services, browser: Browser) -> None:
    """The person changes the password elsewhere."""
    await services.accounts.change_password("alice", current=PASSWORD, new=NEW_PASSWORD, keep=None)


async def set_password(services: Services, browser: Browser) -> None:
    """An operator sets a new password."""
    await services.accounts.set_password("alice", NEW_PASSWORD)


async def remove(services: Services, browser: Browser) -> None:
    """An operator removes the user."""
    await services.accounts.remove("alice")


async def disable(services: Services, browser: Browser) -> None:
    """An operator disables the account."""
    await services.accounts.change("alice", UserChanges(disabled=True))


async def end_hers(services: Services, browser: Browser) -> None:
    """An operator ends all sessions of the user."""
    await services.sessions.end_all("alice", reason="ended_by_operator")


async def end_all(services: Services, browser: Browser) -> None:
    """An operator ends all sessions that there are."""
    await services.sessions.end_all(None, reason="ended_by_operator")


@pytest.fixture
def deepstream(alices: Browser) -> Deepstream:
    """A deepstream server at the public listener."""
    return Deepstream(Browser(alices.client, alices.base_url))


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("expected", "end"),
    [
        ("session_ended", log_out),
        ("session_ended", change_password),
        ("session_ended", set_password),
        ("session_ended", remove),
        ("account_disabled", disable),
        ("session_ended", end_hers),
        ("session_ended", end_all),
    ],
)
async def test_session_is_over_everywhere_at_once(
    alices: Browser, deepstream: Deepstream, services: Services, expected: str, end: End
) -> None:
    """One session, everywhere: page, API, proxy and connection refuse it in the same moment."""
    token = alices.cookies["access_token"]
    assert (await deepstream.ask_about_cookie(token)).code == 200

    await end(services, alices)

    by_cookie, by_token = await deepstream.ask_about_cookie(token), await deepstream.ask_about_token(token)
    page, script = await alices.get("/"), await alices.ask("/session")
    proxy, renewal = await alices.ask("/auth/verify"), await alices.send("/session/renew")
    assert (403, expected) == (by_cookie.code, by_cookie.body.decode())
    assert (403, expected) == (by_token.code, by_token.body.decode())
    assert (page.code, page.headers["Location"]) == (303, "/login?next=%2F")
    assert (401, {"error": expected}) == (script.code, json_of(script))
    assert (401, expected) == (proxy.code, proxy.headers["X-Auth-Error"])
    assert (401, {"error": expected}) == (renewal.code, json_of(renewal))


@pytest.mark.gen_test
@pytest.mark.parametrize("end", [change_password, set_password, remove, disable])
async def test_old_password_is_worth_nothing_from_then_on(alices: Browser, services: Services, end: End) -> None:
    """What ended the sessions keeps the person, or the thief, from a new one."""
    await end(services, alices)

    assert (await alices.log_in()).code == 403


@pytest.mark.gen_test
async def test_enabled_account_logs_in_again_and_old_sessions_stay_ended(alices: Browser, services: Services) -> None:
    """Enabling gives back the account, not the sessions."""
    token = alices.cookies["access_token"]
    await services.accounts.change("alice", UserChanges(disabled=True))
    await services.accounts.change("alice", UserChanges(disabled=False))

    assert json_of(await alices.ask("/session"))["error"] == "account_disabled"
    assert (await alices.log_in()).code == 303
    assert (await alices.ask("/session")).code == 200
    assert token != alices.cookies["access_token"]


@pytest.mark.gen_test
async def test_new_user_of_the_same_name_does_not_inherit_sessions(alices: Browser, services: Services) -> None:
    """A removed user's token is nobody's, also when somebody gets the name."""
    await services.accounts.remove("alice")
    await services.accounts.add("alice", NEW_PASSWORD)

    assert json_of(await alices.ask("/session")) == {"error": "session_ended"}


@pytest.mark.gen_test
async def test_changed_user_has_new_data_in_the_next_answer(
    alices: Browser, deepstream: Deepstream, services: Services
) -> None:
    """New roles reach pages and connections without a new login."""
    token = alices.cookies["access_token"]
    await services.accounts.change(
        "alice", UserChanges(server_data={"roles": ["guest"]}, client_data={"colour": "red"})
    )

    answer = json_of(await deepstream.ask_about_cookie(token))

    assert (answer["serverData"]["roles"], answer["serverData"]["version"]) == (["guest"], 2)
    assert answer["clientData"]["colour"] == "red"
    assert (await alices.get("/")).code == 200


@pytest.mark.gen_test
async def test_other_users_notice_nothing(alices: Browser, deepstream: Deepstream, services: Services) -> None:
    """Ends and changes are about one person."""
    await services.accounts.add("bob", PASSWORD)
    bobs = Browser(alices.client, alices.base_url)
    await bobs.log_in("bob")

    await services.accounts.change("alice", UserChanges(disabled=True))

    assert (await bobs.ask("/session")).code == 200
    assert (await deepstream.ask_about_cookie(bobs.cookies["access_token"])).code == 200
