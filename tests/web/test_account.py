"""People and their own sessions: what `/account` shows, ends and changes."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPResponse
from tornado.platform.asyncio import AsyncIOLoop

from tests.fakes import ManualClock
from tests.web.browser import FORM, PAGE, PASSWORD, Browser, session_cookie
from tests.web.conftest import NewBrowser
from tornado_ds.app import open_services
from tornado_ds.browsers import browser_name
from tornado_ds.errors import ReadOnlyUserStoreError
from tornado_ds.services import Services
from tornado_ds.settings import SessionSettings, Settings
from tornado_ds.storage.memory import MemoryUserStore
from tornado_ds.users import User, UserChanges

NEW_PASSWORD = "a purple elephant in the rain"

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

pytestmark = pytest.mark.gen_test(timeout=30)


@pytest.fixture
def overrides(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The database whose kind the test names, if it names one."""
    return {"database_url": request.getfixturevalue(f"{request.param}_url")} if hasattr(request, "param") else {}


@pytest.fixture
def bob(io_loop: AsyncIOLoop, services: Services) -> User:
    """Another user, with the same password."""
    user: User = io_loop.run_sync(lambda: services.accounts.add("bob", PASSWORD))
    return user


@pytest.fixture
def other_node(io_loop: AsyncIOLoop, settings: Settings, clock: ManualClock) -> Iterator[Services]:
    """Another process over the same database."""
    stack = AsyncExitStack()
    yield io_loop.run_sync(lambda: stack.enter_async_context(open_services(settings, clock=clock)))
    io_loop.run_sync(stack.aclose)


class StoreOfAnother(MemoryUserStore):
    """Users whom somebody else manages."""

    async def update(self, username: str, changes: UserChanges) -> User:
        raise ReadOnlyUserStoreError("users are managed elsewhere")


class StoreThatSaysSo(StoreOfAnother):
    """The same, which can be known before somebody tries."""

    is_read_only = True


async def test_account_shows_own_sessions_only(
    alices: Browser, new_browser: NewBrowser, services: Services, bob: User
) -> None:
    """Each of one's own sessions is there once, this one is marked, and nobody else's is."""
    other, bobs = new_browser(), new_browser()
    await other.log_in()
    await bobs.log_in("bob")

    page = await alices.get("/account")

    assert page.code == 200
    assert len(rows_of(page)) == 2
    assert [row.count("This one") for row in sorted(rows_of(page), key=sid_of)] == [1, 0]
    assert [sid_of(row) for row in rows_of(page) if sid_of(row)] == [await sid_of_browser(services, other)]
    assert (await sid_of_browser(services, bobs)) not in page.body.decode()


async def test_account_tells_sessions_apart(
    alices: Browser, new_browser: NewBrowser, services: Services, alice: User, clock: ManualClock
) -> None:
    """Browser, address, start and last renewal of a session are there, and the label of one for a device."""
    clock.advance(3600)
    await services.feed.read()
    other = new_browser()
    await other.submit("/handle-login", {"username": "alice", "password": PASSWORD}, User_Agent=FIREFOX)
    await services.sessions.open(alice, label="invoice printer", lifetime=600)

    rows = rows_of(await alices.get("/account"))

    labelled = next(row for row in rows if "invoice printer" in row)
    firefox = next(row for row in rows if "Firefox on Linux" in row)
    assert "127.0.0.1" in firefox
    assert re.findall(r"Started.*?datetime=\"(.*?)\"", firefox) == ["2027-01-15T09:00:00Z"]
    assert re.findall(r"renewed.*?datetime=\"(.*?)\"", firefox) == ["2027-01-15T09:00:00Z"]
    assert "This one" not in labelled + firefox


async def test_account_shows_what_a_browser_calls_itself_as_text(alices: Browser, new_browser: NewBrowser) -> None:
    """A User-Agent is whatever a stranger sent, so nothing in it becomes part of the page."""
    other = new_browser()
    await other.submit(
        "/handle-login", {"username": "alice", "password": PASSWORD}, User_Agent="<script>alert(1)</script>"
    )

    page = await alices.get("/account")

    assert "<script>alert" not in page.body.decode()
    assert "&lt;script&gt;alert" in page.body.decode()


@pytest.mark.parametrize(
    ("expected", "user_agent"),
    [
        pytest.param("Firefox on Linux", FIREFOX, id="firefox"),
        pytest.param(
            "Chrome on Windows",
            "Mozilla/5.0 (Windows NT 10.0; Win64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/147.0 Safari/537.36",
            id="chrome",
        ),
        pytest.param(
            "Edge on Windows",
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/147.0 Safari/537.36 Edg/147.0",
            id="edge",
        ),
        pytest.param(
            "Safari on iPhone",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1 Version/18.0 Mobile Safari/604.1",
            id="iphone",
        ),
        pytest.param(
            "Chrome on Android",
            "Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/147.0 Mobile Safari/537.36",
            id="android",
        ),
        pytest.param(
            "Safari on macOS",
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/18.0 Safari/605.1.15",
            id="mac",
        ),
        pytest.param("curl", "curl/8.5.0", id="curl"),
        pytest.param("deepstream", "deepstream", id="deepstream"),
        pytest.param("python-requests", "python-requests/2.32", id="library"),
        pytest.param("x" * 40, "x" * 250, id="endless"),
        pytest.param("Unknown browser", "", id="empty"),
    ],
)
async def test_browser_name_is_one_that_its_owner_recognises(expected: str, user_agent: str) -> None:
    """Most browsers claim to be several others."""
    assert expected == browser_name(user_agent)


async def test_account_asks_strangers_to_log_in(browser: Browser) -> None:
    """Without a session the page leads to the login, and back."""
    page = await browser.get("/account")

    assert (page.code, page.headers["Location"]) == (303, "/login?next=%2Faccount")


async def test_end_session_ends_that_one(alices: Browser, new_browser: NewBrowser, services: Services) -> None:
    """The session that was named ends at once, this one goes on, and the page says so."""
    ended, spared = new_browser(), new_browser()
    await ended.log_in()
    await spared.log_in()

    answer = await alices.submit("/account/end-session", {"sid": await sid_of_browser(services, ended)})
    page = await alices.get(answer.headers["Location"])

    assert answer.code == 303
    assert [await status_of(each) for each in (ended, spared, alices)] == [401, 200, 200]
    assert "The session is ended." in page.body.decode()


async def test_end_session_leaves_the_sessions_of_others_alone(
    alices: Browser, new_browser: NewBrowser, services: Services, bob: User
) -> None:
    """Whoever knows somebody else's session id still cannot end it here."""
    bobs = new_browser()
    await bobs.log_in("bob")

    answer = await alices.submit("/account/end-session", {"sid": await sid_of_browser(services, bobs)})

    assert answer.code == 303
    assert [await status_of(each) for each in (bobs, alices)] == [200, 200]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="missing"),
        pytest.param({"sid": ""}, id="empty"),
        pytest.param({"sid": "nobody's"}, id="unknown"),
        pytest.param({"sid": "\0"}, id="nul"),
        pytest.param({"sid": b"\xff"}, id="not-utf8"),
        pytest.param({"sid": b"\xed\xa0\x80"}, id="surrogate"),
        pytest.param({"sid": "x" * 5000}, id="long"),
    ],
)
async def test_end_session_ends_nothing_when_there_is_no_such_session(
    alices: Browser, new_browser: NewBrowser, fields: dict[str, str | bytes]
) -> None:
    """A form that somebody wrote by hand, or a late second click, ends as kindly as any."""
    other = new_browser()
    await other.log_in()

    answer = await alices.submit("/account/end-session", fields)

    assert answer.code == 303
    assert [await status_of(each) for each in (other, alices)] == [200, 200]


@pytest.mark.parametrize("overrides", ["sqlite", "postgresql"], indirect=True)
async def test_end_session_ends_nothing_when_no_database_has_such_a_text(alices: Browser) -> None:
    """PostgreSQL stores no NUL, and what cannot be stored is no trouble of ours."""
    answer = await alices.submit("/account/end-session", {"sid": "a\0b"})

    assert (answer.code, answer.headers["Location"]) == (303, "/account?notice=ended")
    assert await status_of(alices) == 200


async def test_end_session_logs_out_when_it_is_this_one(alices: Browser, services: Services) -> None:
    """Ending the session that one is using is a log-out."""
    await alices.submit("/account/end-session", {"sid": await sid_of_browser(services, alices)})

    assert await status_of(alices) == 401


async def test_end_others_ends_all_but_this_one(alices: Browser, new_browser: NewBrowser, bob: User) -> None:
    """All one's own sessions end except the one that asks; other people's stay."""
    second, third, bobs = new_browser(), new_browser(), new_browser()
    await second.log_in()
    await third.log_in()
    await bobs.log_in("bob")

    answer = await alices.submit("/account/end-others", {})
    page = await alices.get(answer.headers["Location"])

    assert [await status_of(each) for each in (second, third, alices, bobs)] == [401, 401, 200, 200]
    assert "All your other sessions are ended." in page.body.decode()
    assert len(rows_of(page)) == 1
    assert "end-others" not in page.body.decode()


async def test_password_is_changed_when_the_current_one_is_right(alices: Browser, new_browser: NewBrowser) -> None:
    """All other sessions end, this one goes on with a new cookie, and only the new password logs in."""
    other = new_browser()
    await other.log_in()

    answer = await change_password(alices, PASSWORD, NEW_PASSWORD)
    page = await alices.get(answer.headers["Location"])

    assert answer.code == 303
    assert session_cookie(answer) is not None
    assert [await status_of(each) for each in (other, alices)] == [401, 200]
    assert "Your password is changed" in page.body.decode()
    assert [(await new_browser().log_in(password=each)).code for each in (PASSWORD, NEW_PASSWORD)] == [403, 303]


async def test_session_stays_good_when_the_new_cookie_is_lost(alices: Browser) -> None:
    """Somebody whose browser goes away before the answer comes keeps this session all the same."""
    before = dict(alices.cookies)

    await change_password(alices, PASSWORD, NEW_PASSWORD)
    alices.cookies = before

    assert await status_of(alices) == 200


@pytest.mark.parametrize(
    ("status", "message", "current", "new"),
    [
        pytest.param(403, "The current password is not right.", "wrong password", NEW_PASSWORD, id="wrong"),
        pytest.param(403, "The current password is not right.", "", NEW_PASSWORD, id="nothing"),
        pytest.param(403, "The current password is not right.", PASSWORD + " ", NEW_PASSWORD, id="blank-behind"),
        pytest.param(403, "The current password is not right.", PASSWORD + "\0", NEW_PASSWORD, id="nul"),
        pytest.param(403, "The current password is not right.", "x" * 5000, NEW_PASSWORD, id="long"),
        pytest.param(422, "at least 12 characters", PASSWORD, "short", id="too-short"),
        pytest.param(422, "at least 12 characters", PASSWORD, "", id="new-empty"),
        pytest.param(422, "everybody tries first", PASSWORD, "qwertyuiop123", id="common"),
        pytest.param(422, "72", PASSWORD, "ä" * 37, id="too-many-bytes"),
    ],
)
async def test_password_stays_when_a_rule_is_broken(
    alices: Browser, new_browser: NewBrowser, status: int, message: str, current: str, new: str
) -> None:
    """The page comes back and says why, no session ends, and the old password still logs in."""
    other = new_browser()
    await other.log_in()

    answer = await change_password(alices, current, new)

    assert answer.code == status
    assert message.lower() in alert_of(answer).lower()
    assert new not in answer.body.decode() or not new
    assert [await status_of(each) for each in (other, alices)] == [200, 200]
    assert (await new_browser().log_in()).code == 303


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        pytest.param(
            "x" * 73,
            "The password may have at most 72 bytes: 72 plain letters, fewer with accents or emoji.",
            id="long",
        ),
        pytest.param("x" * 12 + "\0", "The password may have at most 72 bytes, and none of them NUL.", id="nul"),
    ],
)
async def test_account_says_in_words_what_is_wrong_with_a_password(alices: Browser, new: str, expected: str) -> None:
    """A sentence for people, with its capitals as they are."""
    page = await change_password(alices, PASSWORD, new)

    assert alert_of(page) == expected


async def test_account_says_how_long_a_password_may_be(alices: Browser) -> None:
    """Both ends of the rule stand at the field, before somebody breaks it."""
    page = (await alices.get("/account")).body.decode()

    assert "12 to 72 characters; accents and emoji count for several." in page


async def test_password_stays_when_it_would_be_the_name(
    new_browser: NewBrowser, io_loop: AsyncIOLoop, services: Services
) -> None:
    """The first password that anybody would guess is refused, in any spelling."""
    await services.accounts.add("Annabel-Lee-of-Poe", PASSWORD)
    browser = new_browser()
    await browser.log_in("Annabel-Lee-of-Poe")

    answer = await change_password(browser, PASSWORD, "annabel-lee-OF-poe")

    assert answer.code == 422
    assert "name" in alert_of(answer)


@pytest.mark.parametrize("fields", [{}, {"current_password": PASSWORD}, {"new_password": NEW_PASSWORD}])
async def test_password_stays_when_a_field_is_missing(
    alices: Browser, new_browser: NewBrowser, fields: dict[str, str]
) -> None:
    """Half a form changes nothing."""
    answer = await alices.submit("/account/password", fields)

    assert answer.code in (403, 422)
    assert (await new_browser().log_in()).code == 303


@pytest.mark.parametrize("overrides", [{"user_store": f"{__name__}:StoreOfAnother"}])
async def test_password_stays_when_users_are_managed_elsewhere(
    alices: Browser, new_browser: NewBrowser, overrides: dict[str, Any]
) -> None:
    """The page says so, nobody is logged out, and the password is the one of before."""
    page = await change_password(alices, PASSWORD, NEW_PASSWORD)

    again = await new_browser().log_in()
    assert page.code == 409
    assert b"kept elsewhere" in page.body
    assert (await alices.get("/account")).code == 200
    assert again.code == 303


@pytest.mark.parametrize("overrides", [{"user_store": f"{__name__}:StoreThatSaysSo"}])
async def test_account_has_no_form_for_a_password_when_users_are_managed_elsewhere(
    alices: Browser, overrides: dict[str, Any]
) -> None:
    """Nobody thinks out a password for nothing where the store says beforehand that it keeps none."""
    page = (await alices.get("/account")).body.decode()

    assert "Your password is kept elsewhere, and cannot be changed here." in page
    assert 'name="new_password"' not in page


async def test_password_page_leads_to_the_login_when_the_session_ended_meanwhile(
    alices: Browser, services: Services, other_node: Services
) -> None:
    """Another node ended the session a moment ago, and this one does not know yet: no error, but the login."""
    await other_node.sessions.end(await sid_of_browser(services, alices), reason="ended_by_operator")

    answer = await change_password(alices, PASSWORD, NEW_PASSWORD)

    assert (answer.code, answer.headers["Location"]) == (303, "/login")


async def test_password_page_leads_to_the_login_when_the_user_was_removed_meanwhile(
    alices: Browser, other_node: Services
) -> None:
    """Another node removed the user a moment ago, and this one does not know yet."""
    await other_node.accounts.remove("alice")

    answer = await change_password(alices, PASSWORD, NEW_PASSWORD)

    assert answer.code == 403


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Sec-Fetch-Site": "cross-site"}, id="cross-site"),
        pytest.param({"Sec-Fetch-Site": "same-site"}, id="other-port"),
        pytest.param({"Origin": "https://evil.example"}, id="origin-of-an-old-browser"),
        pytest.param({"Origin": "null"}, id="origin-null"),
    ],
)
@pytest.mark.parametrize("path", ["end-session", "end-others", "password"])
async def test_form_of_another_site_is_refused(
    alices: Browser, new_browser: NewBrowser, services: Services, path: str, headers: dict[str, str]
) -> None:
    """A page of a stranger can submit our forms with a visitor's cookie, and nothing comes of it."""
    other = new_browser()
    await other.log_in()
    base = {name: value for name, value in (PAGE | FORM).items() if name != "Sec-Fetch-Site"}
    body = f"sid={await sid_of_browser(services, other)}&current_password={PASSWORD}&new_password={NEW_PASSWORD}"

    answer = await alices.fetch("POST", f"/account/{path}", headers=base | headers, body=body)

    assert answer.code == 403
    assert [await status_of(each) for each in (other, alices)] == [200, 200]
    assert (await new_browser().log_in()).code == 303


@pytest.mark.parametrize("path", ["end-session", "end-others", "password"])
async def test_form_of_a_stranger_is_refused(browser: Browser, alice: User, path: str) -> None:
    """Without a session nothing is done, and nothing is found out."""
    answer = await browser.submit(f"/account/{path}", {"current_password": PASSWORD, "new_password": NEW_PASSWORD})

    assert answer.code == 401
    assert (await browser.log_in()).code == 303


@pytest.mark.parametrize("path", ["end-session", "end-others"])
async def test_link_ends_nothing(alices: Browser, new_browser: NewBrowser, path: str) -> None:
    """What ends sessions is never a mere link, which a mail or an image could hold."""
    other = new_browser()
    await other.log_in()

    answer = await alices.get(f"/account/{path}")

    assert answer.code == 405
    assert await status_of(other) == 200


async def test_account_answers_503_when_the_database_is_away(alices: Browser, sqlite_file: Path) -> None:
    """The page says that it is our trouble, and when to try again."""
    with closing(sqlite3.connect(sqlite_file)) as database:
        database.execute("ALTER TABLE sessions RENAME TO gone")

    page = await alices.get("/account")

    assert page.code == 503
    assert page.headers["Retry-After"] == "5"


@pytest.mark.parametrize("overrides", [{"session": SessionSettings(max_per_user=2)}])
async def test_oldest_session_ends_when_there_are_too_many(
    new_browser: NewBrowser, clock: ManualClock, alice: User, bob: User, overrides: dict[str, Any]
) -> None:
    """With `session.max_per_user` a login beyond it ends the oldest session of that user, and no other's."""
    browsers = [new_browser() for _ in range(4)]
    await browsers[0].log_in("bob")
    for browser in browsers[1:]:
        clock.advance(1)
        await browser.log_in()

    assert [await status_of(each) for each in browsers] == [200, 401, 200, 200]


@pytest.mark.parametrize("overrides", [{"session": SessionSettings(max_per_user=1)}])
async def test_newest_session_lives_when_several_begin_in_one_second(
    new_browser: NewBrowser, alice: User, overrides: dict[str, Any]
) -> None:
    """A login that ends another session for lack of room never ends itself."""
    browsers = [new_browser() for _ in range(8)]
    statuses = []
    for browser in browsers:
        await browser.log_in()
        statuses.append(await status_of(browser))

    assert statuses == [200] * 8
    assert [await status_of(each) for each in browsers] == [401] * 7 + [200]


async def change_password(browser: Browser, current: str, new: str) -> HTTPResponse:
    """Fill in the form and send it."""
    return await browser.submit("/account/password", {"current_password": current, "new_password": new})


async def status_of(browser: Browser) -> int:
    """Return 200 while the browser's session is good."""
    return (await browser.ask("/session")).code


async def sid_of_browser(services: Services, browser: Browser) -> str:
    """Return the id of the browser's session."""
    return services.tokens.verify(browser.cookies["access_token"]).sid


def rows_of(page: HTTPResponse) -> list[str]:
    """Return the markup of each session in the list."""
    return re.findall(r"<li>.*?</li>", page.body.decode(), re.DOTALL)


def sid_of(row: str) -> str:
    """Return the id in the form that ends the session; empty if there is none."""
    return "".join(re.findall(r'name="sid" value="(.*?)"', row))


def alert_of(page: HTTPResponse) -> str:
    """Return what the page says that went wrong."""
    return "".join(re.findall(r'role="alert".*?>(.*?)</p>', page.body.decode()))
