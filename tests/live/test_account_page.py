"""People and their sessions in a real browser: the account page, and what a live page says when its session ends."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.live.conftest import PASSWORD, NewContext
from tests.live.servers import AuthServer, Deepstream, free_port, wait_for
from tests.live.test_browser import log_in, violations_of

NEW_PASSWORD = "a purple elephant in the rain"

NAMES = ["anna", "berta", "carla", "dora", "emma", "frida", "greta", "hanna"]

CONNECT = """
async (url) => {
  window.client = new (DeepstreamClient.DeepstreamClient || DeepstreamClient)(url, { reconnectIntervalIncrement: 100 })
  await window.client.login()
}
"""

WRITE_NEWS = """
async () => {
  try { await window.client.record.setDataWithAck('news/page', {}) } catch (error) { return error }
  return 'written'
}
"""


@pytest.fixture(scope="module", autouse=True)
def _users(auth_server: AuthServer) -> None:
    """A user for each test."""
    auth_server.cli("seed", "-", text=json.dumps([{"username": name, "password": PASSWORD} for name in NAMES]))


def test_logout_in_one_tab_ends_the_other(
    new_context: NewContext, auth_server: AuthServer, deepstream: Deepstream
) -> None:
    """The other tab's connection is closed; it says why, keeps what was written, and leads back."""
    context = new_context()
    first, second = context.new_page(), context.new_page()
    log_in(first, auth_server, "anna")
    second.goto(auth_server.url)
    expect(second.locator("#connection[data-state=open]")).to_be_visible()
    second.locator("#shared").fill("not lost")

    first.locator("#logout").click()

    expect(second.locator("#connection[data-state=ended]")).to_be_visible()
    expect(second.get_by_role("alert")).to_contain_text("You were logged out in this browser.")
    expect(second.locator("#shared")).to_have_value("not lost")
    second.get_by_role("link", name="Log in again").click()
    expect(second.get_by_label("Password")).to_be_visible()


@pytest.mark.parametrize(
    ("name", "command", "reason"),
    [
        pytest.param("berta", ["sessions", "end", "--user", "berta"], "You were logged out elsewhere.", id="end"),
        pytest.param("carla", ["users", "disable", "carla"], "This account has been disabled.", id="disable"),
    ],
)
def test_page_says_why_its_session_ended(
    new_context: NewContext,
    auth_server: AuthServer,
    deepstream: Deepstream,
    name: str,
    command: list[str],
    reason: str,
) -> None:
    """An operator's command reaches the open page, which tells the person instead of dying."""
    page = new_context().new_page()
    log_in(page, auth_server, name)

    auth_server.cli(*command)

    expect(page.locator("#connection[data-state=ended]")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text(reason)
    expect(page.locator("#time-left")).to_have_text("None")
    assert violations_of(page) == []


def test_change_of_roles_reaches_the_page_without_a_reload(
    new_context: NewContext, auth_server: AuthServer, deepstream: Deepstream
) -> None:
    """A Valve rule that denied before the change allows after it, on a page that was never loaded anew."""
    page = new_context().new_page()
    log_in(page, auth_server, "dora")
    page.evaluate(CONNECT, deepstream.url)

    before = page.evaluate(WRITE_NEWS)
    auth_server.cli("users", "roles", "dora", "editor")
    wait_for(lambda: page.evaluate(WRITE_NEWS) == "written")

    assert before == "MESSAGE_DENIED"
    expect(page.locator("#connection[data-state=open]")).to_be_visible()


def test_page_renews_while_it_is_used_and_ends_when_it_is_not(
    tmp_path: Path, new_context: NewContext, secret: str
) -> None:
    """Work on the page keeps the connection alive past the first expiry; a page left alone runs out and says so."""
    port = free_port()
    auth_server = AuthServer(
        tmp_path, secret=secret, deepstream_port=port, env={"TORNADO_DS_SESSION__IDLE_TIMEOUT": "3s"}
    )
    auth_server.cli("seed", "-", text=json.dumps([{"username": "alice", "password": PASSWORD}]))

    with auth_server, Deepstream(tmp_path, secret=secret, internal=auth_server.internal, port=port) as deepstream:
        page = new_context().new_page()
        log_in(page, auth_server)
        first_expiry = page.evaluate("fetch('/session').then((answer) => answer.json())")["expiresAt"]
        page.locator("#shared").press_sequentially("still working on it, still working on it", delay=70)
        page.wait_for_function("(expiry) => Date.now() > expiry + 300", arg=first_expiry)
        state = page.locator("#connection").get_attribute("data-state")
        closed_before = "closed a connection of alice" in deepstream.output
        expect(page.locator("#connection[data-state=ended]")).to_be_visible()
        message = page.get_by_role("alert").inner_text()
        page.close()

    assert (state, closed_before) == ("open", False)
    assert message.startswith("Your session ran out.")


def test_account_page_works_without_javascript(new_context: NewContext, auth_server: AuthServer) -> None:
    """One session is ended, then all others, then the password is changed: plain forms, and each says what it did."""
    page = new_context(java_script_enabled=False).new_page()
    log_in_plainly(page, auth_server, "emma")
    others = [auth_server.log_in("emma", PASSWORD) for _ in range(3)]

    page.get_by_role("link", name="Account").click()
    expect(page.get_by_role("listitem")).to_have_count(4)
    expect(page.get_by_role("listitem").filter(has_text="This one")).to_have_count(1)
    page.get_by_role("button", name=re.compile("^End the session")).first.click()
    expect(page.get_by_role("status")).to_have_text("The session is ended.")
    expect(page.get_by_role("listitem")).to_have_count(3)
    page.get_by_role("button", name="End all others").click()
    expect(page.get_by_role("listitem")).to_have_count(1)
    others.append(auth_server.log_in("emma", PASSWORD))
    change_password(page, PASSWORD, NEW_PASSWORD)
    expect(page.get_by_role("status")).to_contain_text("Your password is changed")

    expect(page.get_by_role("listitem")).to_have_count(1)
    assert auth_server.log_in("emma", NEW_PASSWORD)


def test_account_page_shows_the_times_of_the_reader(new_context: NewContext, auth_server: AuthServer) -> None:
    """With JavaScript, moments are in the zone and language of whoever reads, and UTC is what the mouse finds."""
    page = new_context(timezone_id="Asia/Tokyo", locale="en-GB").new_page()
    log_in_plainly(page, auth_server, "hanna")

    page.goto(f"{auth_server.url}/account")

    started = page.get_by_role("listitem").locator("time").first
    expect(started).to_have_attribute("title", re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC"))
    expect(started).to_have_text(re.compile(r"\d{1,2} \w+ \d{4}, \d\d:\d\d"))


def test_change_of_password_ends_the_page_in_another_browser(
    new_context: NewContext, auth_server: AuthServer, deepstream: Deepstream
) -> None:
    """Whoever else sits there with the old password is out at once; one's own page goes on."""
    mine, theirs = new_context().new_page(), new_context().new_page()
    log_in(mine, auth_server, "frida")
    log_in(theirs, auth_server, "frida")

    mine.goto(f"{auth_server.url}/account")
    change_password(mine, PASSWORD, NEW_PASSWORD)
    expect(mine.get_by_role("status")).to_contain_text("Your password is changed")

    expect(theirs.get_by_role("alert")).to_contain_text("You were logged out elsewhere.")
    mine.goto(auth_server.url)
    expect(mine.locator("#connection[data-state=open]")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_account_page_is_accessible(new_context: NewContext, auth_server: AuthServer, scheme: str) -> None:
    """axe-core finds nothing, whatever the page has to say; and it says it where the focus is."""
    page = new_context(color_scheme=scheme).new_page()
    log_in_plainly(page, auth_server, "greta")
    auth_server.log_in("greta", PASSWORD)
    violations = {}

    page.goto(f"{auth_server.url}/account")
    violations["sessions"] = violations_of(page)
    page.get_by_role("button", name="End all others").click()
    expect(page.get_by_role("status")).to_be_focused()
    violations["notice"] = violations_of(page)
    change_password(page, "not the password", NEW_PASSWORD)
    expect(page.get_by_role("alert")).to_be_focused()
    violations["message"] = violations_of(page)

    assert violations == {"sessions": [], "notice": [], "message": []}


def log_in_plainly(page: Page, auth_server: AuthServer, username: str) -> None:
    """Log in by the form, live or not."""
    page.goto(auth_server.url)
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#who")).to_have_text(username)


def change_password(page: Page, current: str, new: str) -> None:
    """Fill in the form of the account page."""
    page.get_by_label("Current password").fill(current)
    page.get_by_label("New password").fill(new)
    page.get_by_role("button", name="Change password").click()
