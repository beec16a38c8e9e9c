import re
from typing import Any
from urllib.parse import unquote

import pytest

from tests.fakes import ManualClock
from tests.web.browser import FORM, PAGE, PASSWORD, SCRIPT, Browser, json_of, session_cookie
from tests.web.conftest import NewBrowser
from tornado_ds.services import Services
from tornado_ds.users import User, UserChanges

HOUR = 3600


@pytest.mark.gen_test
async def test_session_says_who_and_until_when(alices: Browser, clock: ManualClock) -> None:
    """The expiry is in milliseconds, as JavaScript wants it."""
    response = await alices.ask("/session")

    expected = {"username": "alice", "expiresAt": (int(clock.now()) + 12 * HOUR) * 1000}
    assert (200, expected) == (response.code, json_of(response))
    assert session_cookie(response) is None


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ["/session", "/auth/verify"])
@pytest.mark.parametrize(
    ("expected", "cookie"),
    [
        pytest.param("not_logged_in", "", id="none"),
        pytest.param("not_logged_in", "theme=dark", id="another"),
        pytest.param("not_logged_in", "access_token=TOKEN; access_token=TOKEN", id="twice"),
        pytest.param("not_logged_in", "\xa0access_token=TOKEN", id="planted"),
        pytest.param("not_logged_in", "__Host-access_token=TOKEN", id="name-for-https"),
        pytest.param("session_invalid", "access_token=", id="empty"),
        pytest.param("session_invalid", "access_token=x.y.z", id="forged"),
        pytest.param("session_invalid", 'access_token="TOKEN"', id="quoted"),
        pytest.param("session_invalid", "access_token=TOKENx", id="longer"),
    ],
)
async def test_session_says_why_not_when_there_is_no_good_cookie(
    alices: Browser, path: str, expected: str, cookie: str
) -> None:
    """401 with the reason, never a redirect, for scripts and for pages."""
    cookie = cookie.replace("TOKEN", alices.cookies["access_token"])

    for kind in (PAGE, SCRIPT):
        response = await alices.fetch("GET", path, headers={**kind, "Cookie": cookie})
        assert response.code == 401
        if path == "/session":
            assert json_of(response) == {"error": expected}
        else:
            assert response.headers["X-Auth-Error"] == expected


@pytest.mark.gen_test
async def test_session_says_expired_when_its_time_is_over(alices: Browser, clock: ManualClock) -> None:
    """A session that nobody renewed ends with its idle time."""
    clock.advance(12 * HOUR)

    assert json_of(await alices.ask("/session")) == {"error": "session_expired"}
    assert json_of(await alices.send("/session/renew")) == {"error": "session_expired"}


@pytest.mark.gen_test
async def test_session_says_unavailable_when_the_feed_is_away_for_too_long(alices: Browser, clock: ManualClock) -> None:
    """Our own trouble is a 503 that says when to come back, and nobody is logged out by it."""
    clock.advance(301)

    for response in (
        await alices.ask("/session"),
        await alices.get("/"),
        await alices.ask("/auth/verify"),
        await alices.send("/session/renew"),
    ):
        assert response.code == 503
        assert int(response.headers["Retry-After"]) > 0
        assert session_cookie(response) is None


@pytest.mark.gen_test
async def test_verify_names_the_user_when_there_is_a_session(alices: Browser) -> None:
    """A proxy gets an empty 204 with the name."""
    response = await alices.ask("/auth/verify")

    assert (response.code, response.body, response.headers["X-Auth-User"]) == (204, b"", "alice")


@pytest.mark.gen_test
@pytest.mark.parametrize("name", ["Jürgen Müller", "a,b;c=d", "100%", "山田"])
async def test_verify_encodes_the_name_when_headers_cannot_carry_it(
    browser: Browser, services: Services, name: str
) -> None:
    """The header is ASCII whatever the name is, and decodes to it."""
    await services.accounts.add(name, PASSWORD)
    await browser.log_in(name)

    header = (await browser.ask("/auth/verify")).headers["X-Auth-User"]

    assert re.fullmatch(r"[\w.~%-]+", header, re.ASCII)
    assert name == unquote(header)


@pytest.mark.gen_test
async def test_renew_moves_the_cookie(alices: Browser, clock: ManualClock, services: Services) -> None:
    """A renewed session runs for the idle time from now on, with the same sid; the older token is good to its end."""
    before = alices.cookies["access_token"]
    clock.advance(HOUR)
    await services.feed.read()

    response = await alices.send("/session/renew")

    expected = {"username": "alice", "expiresAt": (int(clock.now()) + 12 * HOUR) * 1000}
    assert (200, expected) == (response.code, json_of(response))
    assert "Expires=Fri, 15 Jan 2027 21:00:00 GMT" in str(session_cookie(response))
    assert before != alices.cookies["access_token"]
    assert services.tokens.verify(before).sid == services.tokens.verify(alices.cookies["access_token"]).sid

    alices.cookies["access_token"] = before
    assert (await alices.ask("/session")).code == 200


@pytest.mark.gen_test
@pytest.mark.parametrize("overrides", [{"session": {"idle_timeout": 12 * HOUR, "absolute_timeout": 13 * HOUR}}])
async def test_renew_never_passes_the_absolute_end(
    alices: Browser, clock: ManualClock, services: Services, overrides: dict[str, Any]
) -> None:
    """However often it is renewed, a session ends its absolute time after the login."""
    end = (int(clock.now()) + 13 * HOUR) * 1000
    clock.advance(11 * HOUR)
    await services.feed.read()

    assert json_of(await alices.send("/session/renew"))["expiresAt"] == end

    clock.advance(2 * HOUR)
    await services.feed.read()
    assert json_of(await alices.ask("/session")) == {"error": "session_expired"}


@pytest.mark.gen_test
async def test_renew_says_ended_when_another_node_ended_it_just_now(alices: Browser, services: Services) -> None:
    """A session that has ended in the database is not renewed, although this process does not know yet."""
    await services.users.update("alice", UserChanges(disabled=True))

    response = await alices.send("/session/renew")

    assert (response.code, json_of(response)) == (401, {"error": "session_ended"})
    assert session_cookie(response) is None


@pytest.mark.gen_test
async def test_renew_brings_the_data_of_now(alices: Browser, services: Services) -> None:
    """A renewed token says what the user is now, and is not stale any more."""
    await services.accounts.change("alice", UserChanges(server_data={"roles": []}))

    await alices.send("/session/renew")

    claims = services.tokens.verify(alices.cookies["access_token"])
    assert (claims.server_data, claims.version) == ({"roles": []}, 2)


@pytest.mark.gen_test
async def test_logout_ends_the_session_everywhere(alices: Browser, services: Services) -> None:
    """The cookie goes, and a copy of it is worth nothing."""
    stolen = alices.cookies["access_token"]

    response = await alices.submit("/logout", {})

    assert (response.code, response.headers["Location"]) == (303, "/login?notice=logged-out")
    assert session_cookie(response) == (
        "access_token=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/; HttpOnly; SameSite=Lax"
    )
    assert "access_token" not in alices.cookies
    assert "You are logged out." in (await alices.get("/login?notice=logged-out")).body.decode()
    assert await services.sessions.list("alice") == []

    alices.cookies["access_token"] = stolen
    assert json_of(await alices.ask("/session")) == {"error": "session_ended"}
    assert (await alices.get("/")).code == 303


@pytest.mark.gen_test
@pytest.mark.parametrize("overrides", [{"public_url": "https://app.example.com"}])
async def test_logout_clears_the_cookie_with_the_attributes_it_was_set_with(
    alices: Browser, overrides: dict[str, Any]
) -> None:
    """Over https the browser drops only what is cleared as __Host- and Secure."""
    response = await alices.submit("/logout", {})

    assert session_cookie(response) == (
        "__Host-access_token=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/; HttpOnly; SameSite=Lax; Secure"
    )


@pytest.mark.gen_test
async def test_logout_is_as_kind_when_there_is_nothing_to_end(alices: Browser, new_browser: NewBrowser) -> None:
    """A second click, a stale tab and a stranger end on the login page too."""
    copy = new_browser()
    copy.cookies = dict(alices.cookies)
    damaged = new_browser()
    damaged.cookies = {"access_token": "x.y.z"}

    first = await alices.submit("/logout", {})
    for browser in (alices, copy, damaged, new_browser()):
        response = await browser.submit("/logout", {})
        assert (first.code, first.headers["Location"]) == (response.code, response.headers["Location"])
        assert session_cookie(first) == session_cookie(response)


@pytest.mark.gen_test
async def test_logout_is_not_claimed_when_the_feed_is_away_for_too_long(
    alices: Browser, clock: ManualClock, services: Services
) -> None:
    """A session that we cannot end is not called over, and its cookie stays for another try."""
    clock.advance(301)

    during = [await alices.submit("/logout", {}), await alices.send("/logout")]
    await services.feed.read()
    after = await alices.submit("/logout", {})

    assert [503, 503] == [response.code for response in during]
    assert [None, None] == [session_cookie(response) for response in during]
    assert (after.code, after.headers["Location"]) == (303, "/login?notice=logged-out")
    assert await services.sessions.list("alice") == []


@pytest.mark.gen_test
async def test_logout_answers_a_script_with_204(alices: Browser) -> None:
    """A script wants no page."""
    response = await alices.send("/logout")

    assert (response.code, response.body) == (204, b"")
    assert (await alices.ask("/session")).code == 401


@pytest.mark.gen_test
async def test_logout_does_nothing_when_it_is_only_visited(alices: Browser) -> None:
    """A link or an image cannot log anybody out."""
    for method in ("GET", "HEAD"):
        response = await alices.fetch(method, "/logout", headers=PAGE)
        assert (response.code, response.headers["Location"]) == (303, "/")
        assert session_cookie(response) is None

    assert (await alices.ask("/session")).code == 200


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ["/logout", "/session/renew"])
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Sec-Fetch-Site": "cross-site"}, id="fetch-metadata"),
        pytest.param({"Sec-Fetch-Site": "same-site"}, id="neighbour-host"),
        pytest.param({"Origin": "https://evil.example"}, id="origin"),
        pytest.param({"Origin": "null"}, id="opaque-origin"),
        pytest.param({"Origin": "http://["}, id="origin-that-nobody-parses"),
    ],
)
async def test_post_changes_nothing_when_another_site_sent_it(
    alices: Browser, path: str, headers: dict[str, str]
) -> None:
    """Nobody can be logged out, or kept in, from a stranger's page."""
    response = await alices.fetch("POST", path, body=b"", headers={**FORM, "Accept": "text/html", **headers})

    assert response.code == 403
    assert session_cookie(response) is None
    assert (await alices.ask("/session")).code == 200


@pytest.mark.gen_test
async def test_post_is_taken_from_an_allowed_origin(alices: Browser) -> None:
    """A page of `allowed_origins` may use the session, since it may connect with it."""
    headers = {"Origin": "http://localhost:8000"}

    assert (await alices.fetch("POST", "/session/renew", body=b"", headers=headers)).code == 200


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/session", "GET, HEAD"), ("/session/renew", "POST"), ("/auth/verify", "GET, HEAD"), ("/login", "GET, HEAD")],
)
async def test_other_methods_are_405_with_what_is_allowed(alices: Browser, path: str, allowed: str) -> None:
    """A wrong method is told the right ones (RFC 9110, section 15.5.6)."""
    response = await alices.fetch("DELETE", path, headers=SCRIPT)

    assert response.code == 405
    assert set(allowed.split(", ")) == set(response.headers["Allow"].split(", "))


@pytest.mark.gen_test
async def test_sessions_of_one_user_live_apart(alices: Browser, new_browser: NewBrowser, alice: User) -> None:
    """Logging out in one browser leaves the others alone."""
    phone = new_browser()
    await phone.log_in()

    await alices.submit("/logout", {})

    assert (await alices.ask("/session")).code == 401
    assert (await phone.ask("/session")).code == 200
