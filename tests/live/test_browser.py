"""People in a real browser: our pages, the real deepstream, a real Chromium."""

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from playwright.sync_api import Page, expect

from tests.live.conftest import PASSWORD, NewContext
from tests.live.servers import CLIENT_SCRIPT, ROOT, AuthServer, Deepstream

AXE = (ROOT / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")

# What a page does that wants to use a visitor's cookie.
LOG_IN_TO_DEEPSTREAM = """
async (url) => {
  const client = new (DeepstreamClient.DeepstreamClient || DeepstreamClient)(url)
  try { return await client.login() } catch (error) { return error }
}
"""


@pytest.fixture
def foreign_site() -> Iterator[str]:
    """A site on another port, that is on another origin, which has deepstream's client script."""

    class QuietHandler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    handler = partial(QuietHandler, directory=str(CLIENT_SCRIPT.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


def log_in(page: Page, auth_server: AuthServer, username: str = "alice") -> None:
    """Log in by the form, as a person does, and wait until the page is live."""
    page.goto(auth_server.url)
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#connection[data-state=open]")).to_be_visible()


def test_login_leads_to_a_live_page(new_context: NewContext, auth_server: AuthServer, deepstream: Deepstream) -> None:
    """The form logs in, and the page connects to deepstream with the cookie."""
    page = new_context().new_page()

    log_in(page, auth_server)

    assert f"{auth_server.url}/" == page.url
    assert page.locator("#who").inner_text() == "alice"


def test_two_windows_edit_one_record(new_context: NewContext, auth_server: AuthServer, deepstream: Deepstream) -> None:
    """What one writes, the other sees at once, and the other way round."""
    alice, bob = new_context().new_page(), new_context().new_page()
    log_in(alice, auth_server, "alice")
    log_in(bob, auth_server, "bob")

    alice.locator("#shared").fill("hello from alice")
    expect(bob.locator("#shared")).to_have_value("hello from alice")
    bob.locator("#shared").press("Control+End")
    bob.locator("#shared").press_sequentially(" and bob")

    expect(alice.locator("#shared")).to_have_value("hello from alice and bob")


def test_logout_ends_the_session(new_context: NewContext, auth_server: AuthServer, deepstream: Deepstream) -> None:
    """After the log-out the page is closed to the browser, and so is deepstream to its cookie."""
    page = new_context().new_page()
    log_in(page, auth_server)

    page.locator("#logout").click()

    expect(page.get_by_label("Password")).to_be_visible()
    page.goto(auth_server.url)
    expect(page).to_have_url(f"{auth_server.url}/login?next=%2F")
    assert "access_token" not in cookie_names(page)


def test_wrong_password_brings_the_form_back(new_context: NewContext, auth_server: AuthServer) -> None:
    """The form comes back with the name filled in, and a message that screen readers announce."""
    page = new_context().new_page()
    page.goto(auth_server.url)

    page.get_by_label("Username").fill("alice")
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Log in").click()

    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_label("Username")).to_have_value("alice")


def test_login_works_without_javascript(new_context: NewContext, auth_server: AuthServer) -> None:
    """Only the live part needs JavaScript."""
    page = new_context(java_script_enabled=False).new_page()
    page.goto(auth_server.url)

    page.get_by_label("Username").fill("alice")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()

    expect(page.locator("#who")).to_have_text("alice")
    expect(page.locator("#connection")).to_have_text("Not connected")


def test_page_of_another_origin_cannot_use_the_cookie(
    new_context: NewContext, auth_server: AuthServer, deepstream: Deepstream, foreign_site: str
) -> None:
    """Cross-site WebSocket hijacking: the browser sends the cookie along, the webhook looks at the origin."""
    page = new_context().new_page()
    log_in(page, auth_server)

    page.goto(foreign_site)
    page.add_script_tag(url=f"{foreign_site}/{CLIENT_SCRIPT.name}")
    answer = page.evaluate(LOG_IN_TO_DEEPSTREAM, deepstream.url)

    assert "access_token" in cookie_names(page)
    assert answer == {"reason": {"error": "origin_denied"}}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(
    new_context: NewContext, auth_server: AuthServer, deepstream: Deepstream, scheme: str
) -> None:
    """axe-core finds no violation on any page."""
    page = new_context(color_scheme=scheme).new_page()
    violations = {}

    page.goto(f"{auth_server.url}/login")
    violations["login"] = violations_of(page)
    page.get_by_label("Username").fill("alice")
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Log in").click()
    violations["login again"] = violations_of(page)
    log_in(page, auth_server)
    violations["demo"] = violations_of(page)
    page.goto(f"{auth_server.url}/account")
    violations["account"] = violations_of(page)
    page.goto(f"{auth_server.url}/nowhere")
    violations["error"] = violations_of(page)

    assert {name: [] for name in violations} == violations


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone(
    new_context: NewContext, auth_server: AuthServer, deepstream: Deepstream, scheme: str
) -> None:
    """Nothing has to be scrolled sideways on a narrow screen."""
    page = new_context(color_scheme=scheme, viewport={"width": 320, "height": 640}).new_page()

    page.goto(f"{auth_server.url}/login")
    login_overflow = overflow_of(page)
    log_in(page, auth_server)
    demo_overflow = overflow_of(page)

    assert (login_overflow, demo_overflow) == (0, 0)


def cookie_names(page: Page) -> list[str]:
    """Return the names of the cookies that the page's site gets."""
    return [cookie["name"] for cookie in page.context.cookies(page.url)]


def violations_of(page: Page) -> list[str]:
    """Return what axe-core has to say about the page: the rule and the first element that breaks it."""
    page.evaluate(AXE)
    found = page.evaluate("axe.run()")["violations"]
    return [f"{violation['id']}: {violation['nodes'][0]['html']}" for violation in found]


def overflow_of(page: Page) -> int:
    """Return by how many pixels the page is wider than the screen."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))
