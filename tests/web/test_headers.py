"""No answer leaves without its headers: a new route, method or status is crawled as soon as it is there."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.httpclient import HTTPResponse
from tornado.platform.asyncio import AsyncIOLoop
from tornado.routing import PathMatches

from tests.web.browser import FORM, PAGE, SCRIPT, Browser
from tests.web.test_webapp import BrokenHandler
from tornado_ds.handlers.routes import WebApplication, make_app, make_internal_app
from tornado_ds.services import Services
from tornado_ds.users import User

EXPECTED = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "FOO"]


@pytest.fixture(params=["public", "internal", "webapp", "https"])
def kind(request: pytest.FixtureRequest) -> str:
    """Each application in turn, the public one also with a folder and behind https."""
    return str(request.param)


@pytest.fixture
def overrides(kind: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What makes the kinds differ."""
    if kind == "https":
        return {"public_url": "https://app.example.com"}
    if kind == "webapp":
        folder = tmp_path_factory.mktemp("www")
        (folder / "index.html").write_text("<h1>home</h1>")
        return {"webapp_dir": folder}
    return {}


@pytest.fixture
def app(kind: str, services: Services) -> WebApplication:
    """The application, with a route that fails."""
    if kind == "internal":
        return make_internal_app(services)
    return make_app(services, extra_handlers=[(r"/broken", BrokenHandler)])


@pytest.fixture
def session(services: Services, alice: User, io_loop: AsyncIOLoop) -> str:
    """A Cookie header with a session of alice."""
    opened = io_loop.run_sync(lambda: services.sessions.open(alice))
    return f"{services.cookie.name}={opened.token}"


def paths_of(app: WebApplication) -> Iterator[str]:
    """An example of each path that the application has a route for, and the webhook's."""
    yield "/check-token"
    for rule in app.wildcard_router.rules:
        assert isinstance(rule.matcher, PathMatches)
        yield re.sub(r"\(?\.\*\)?", "index.html", rule.matcher.regex.pattern.rstrip("$")).replace("\\", "")


def assert_guarded(response: HTTPResponse, *, kind: str) -> None:
    """The promises about every answer (security.md, "Browser side")."""
    place = f"{response.request.method} {response.request.url} {response.code}"
    headers = response.headers
    policy = headers.get("Content-Security-Policy", "")
    assert {name: headers.get(name) for name in EXPECTED} == EXPECTED, place
    assert policy.startswith("default-src 'none'") or kind == "webapp", place
    assert "frame-ancestors 'none'" in policy, place
    assert "base-uri 'none'" in policy, place
    assert "unsafe-eval" not in policy, place
    assert "Server" not in headers, place
    assert "X-Powered-By" not in headers, place
    assert "Access-Control-Allow-Origin" not in headers, place
    assert (kind == "https") == ("Strict-Transport-Security" in headers), place
    assert headers.get("Cache-Control") == cache_control_of(response), place
    assert (response.code == 405) == ("Allow" in headers), place
    assert not response.body or "Content-Type" in headers, place


def cache_control_of(response: HTTPResponse) -> str:
    """Only what is the same for everybody may be stored."""
    if "/.well-known/" in response.request.url and response.code == 200:
        return "public, max-age=5"
    is_public_file = "/static/" in response.request.url and response.code in (200, 206, 304)
    return "no-cache" if is_public_file else "no-store"


@pytest.mark.gen_test(timeout=30)
@pytest.mark.parametrize("method", METHODS)
async def test_every_route_answers_with_our_headers(
    browser: Browser, app: WebApplication, services: Services, kind: str, alice: User, method: str
) -> None:
    """Each route, with and without a session, to pages, scripts and others; and nothing of it is a server error."""
    opened = await services.sessions.open(alice)
    for path in paths_of(app):
        for headers in (PAGE, SCRIPT | FORM, {}):
            if method == "POST":
                # The request before may have ended its session.
                opened = await services.sessions.open(alice)
            for cookie in ({}, {"Cookie": f"{services.cookie.name}={opened.token}"}):
                if path == "/broken" and cookie and method in ("GET", "HEAD"):
                    continue
                response = await browser.fetch(method, path, headers={**headers, **cookie})
                assert_guarded(response, kind=kind)
                assert response.code < 500
                assert "Set-Cookie" not in response.headers or response.headers["Cache-Control"] == "no-store"


@pytest.mark.gen_test
async def test_errors_of_every_kind_answer_with_our_headers(browser: Browser, kind: str, session: str) -> None:
    """Not found, malformed, too large, from another site, broken, and away."""
    cookie = {"Cookie": session}
    statuses = set()
    for method, path, headers, body in (
        ("GET", "/nothing/here", cookie, None),
        ("GET", "/login?next=%ff", PAGE, None),
        ("GET", "/%ff%fe", PAGE | cookie, None),
        ("GET", "/" + "x" * 5000, PAGE | cookie, None),
        ("POST", "/login", FORM, b"x" * 70_000),
        ("POST", "/check-token", FORM, b"x" * 70_000),
        ("POST", "/handle-login", FORM | {"Origin": "https://evil.example"}, b""),
        ("POST", "/handle-login", FORM | {"Origin": "http://["}, b""),
        ("POST", "/handle-login", {"Content-Type": "multipart/form-data"}, b"x"),
        ("POST", "/handle-login", FORM | {"Content-Encoding": "gzip"}, b"x"),
        ("GET", "/broken?kind=bug", PAGE | cookie, None),
        ("GET", "/broken?kind=storage", SCRIPT | cookie, None),
        ("GET", "/static/style.css", {"Range": "bytes=0-9"}, None),
        ("GET", "/static/style.css", {"If-Modified-Since": "Fri, 15 Jan 2100 08:00:00 GMT"}, None),
    ):
        response = await browser.fetch(method, path, headers=headers, body=body)
        assert_guarded(response, kind=kind)
        statuses.add(response.code)

    expected = {404, 413} if kind == "internal" else {206, 304, 400, 403, 404, 413, 500, 503}
    assert expected <= statuses


@pytest.mark.gen_test
@pytest.mark.parametrize("kind", ["public"], indirect=True)
async def test_policies_name_what_the_pages_need(browser: Browser, session: str, kind: str) -> None:
    """The demo may connect to deepstream and load our scripts; the login page loads a style and no script."""
    demo = await browser.get("/", Cookie=session)
    login = await browser.get("/login")

    assert "connect-src 'self' ws://localhost:6020" in demo.headers["Content-Security-Policy"]
    assert "script-src 'self'" in demo.headers["Content-Security-Policy"]
    assert "script-src" not in login.headers["Content-Security-Policy"]
    assert b"<style" not in demo.body + login.body
    assert b" style=" not in demo.body + login.body
    assert not re.search(rb"<script(?![^>]*src=)", demo.body + login.body)
