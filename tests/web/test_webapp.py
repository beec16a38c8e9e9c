import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.web import HTTPError

from tests.fakes import ManualClock
from tests.web.browser import PAGE, SCRIPT, Browser, json_of, session_cookie
from tornado_ds.errors import StorageError
from tornado_ds.handlers.base import ProtectedHandler
from tornado_ds.handlers.routes import WebApplication, make_app
from tornado_ds.services import Services
from tornado_ds.users import User

HOUR = 3600


class SecretsHandler(ProtectedHandler):
    """A route of somebody who embeds us."""

    async def get(self) -> None:
        self.write_json({"name": self.current_user, "roles": self.claims.server_data["roles"]})

    async def post(self) -> None:
        self.write_json({"name": self.claims.username})


class BrokenHandler(ProtectedHandler):
    """A route that fails, or refuses with any status."""

    async def get(self) -> None:
        if status := self.get_query_argument("status", None):
            raise HTTPError(int(status))
        if self.get_query_argument("kind") == "storage":
            raise StorageError("the database does not answer")
        raise ZeroDivisionError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An app of somebody, and a secret beside it."""
    folder = tmp_path / "www"
    (folder / "sub").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "index.html").write_text("<h1>home</h1>")
    (folder / "app.js").write_text("let app")
    (folder / "sub" / "index.html").write_text("<h1>sub</h1>")
    (folder / "sub" / "with space.txt").write_text("spacious")
    (tmp_path / "secret.txt").write_text("hidden")
    (tmp_path / "www-old").mkdir()
    (tmp_path / "www-old" / "secret.txt").write_text("hidden")
    return folder


@pytest.fixture
def overrides(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """With `webapp_dir` where the test wants the folder; the data are elsewhere."""
    if "folder" not in request.fixturenames:
        return {}
    return {"webapp_dir": request.getfixturevalue("folder")}


@pytest.fixture
def app(services: Services) -> WebApplication:
    """The public application with routes of somebody else."""
    return make_app(services, extra_handlers=[(r"/secrets", SecretsHandler), (r"/broken", BrokenHandler)])


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("path", "encoded"),
    [
        ("/", "%2F"),
        ("/secrets", "%2Fsecrets"),
        ("/anything/else?x=1&y=%2F", "%2Fanything%2Felse%3Fx%3D1%26y%3D%252F"),
        ("/login/../x", "%2Flogin%2F..%2Fx"),
    ],
)
async def test_page_goes_to_the_login_when_there_is_no_session(browser: Browser, path: str, encoded: str) -> None:
    """After the login the visitor comes back to where they wanted to go."""
    for method in ("GET", "HEAD"):
        response = await browser.fetch(method, path, headers=PAGE)
        assert (303, f"/login?next={encoded}") == (response.code, response.headers["Location"])


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(SCRIPT, id="script"),
        pytest.param({}, id="nothing-said"),
        pytest.param({"Accept": "*/*"}, id="anything"),
        pytest.param({"Accept": "text/html", "Sec-Fetch-Mode": "no-cors"}, id="image"),
        pytest.param({"Accept": "text/html", "Sec-Fetch-Mode": "cors"}, id="fetch-of-html"),
    ],
)
async def test_everything_else_is_401_when_there_is_no_session(browser: Browser, headers: dict[str, str]) -> None:
    """What is no page gets no page."""
    for path in ("/", "/secrets", "/anything"):
        response = await browser.fetch("GET", path, headers=headers)
        assert (response.code, json_of(response)) == (401, {"error": "not_logged_in"})
    assert (await browser.fetch("POST", "/secrets", body=b"", headers=headers)).code == 401


@pytest.mark.gen_test
async def test_page_form_is_401_when_there_is_no_session(browser: Browser) -> None:
    """A form that was sent without a session is not repeated as a page."""
    assert (await browser.submit("/secrets", {"a": "b"})).code == 401


@pytest.mark.gen_test
async def test_protected_route_knows_who_is_there(alices: Browser) -> None:
    """A handler of somebody else finds name and data in the claims."""
    assert json_of(await alices.ask("/secrets")) == {"name": "alice", "roles": ["admin"]}
    assert json_of(await alices.send("/secrets", {})) == {"name": "alice"}


@pytest.mark.gen_test
async def test_protected_route_refuses_a_post_when_another_site_sent_it(alices: Browser) -> None:
    """Routes of somebody else have our guard against forged requests."""
    response = await alices.send("/secrets", {}, Sec_Fetch_Site="cross-site")

    assert response.code == 403


@pytest.mark.gen_test
@pytest.mark.parametrize(("expected", "kind"), [(503, "storage"), (500, "bug")])
async def test_failing_route_says_nothing_of_the_reason(alices: Browser, expected: int, kind: str) -> None:
    """An outage is a 503 that says when to come back, a bug a 500, and neither shows a traceback."""
    for response in (await alices.get(f"/broken?kind={kind}"), await alices.ask(f"/broken?kind={kind}")):
        assert expected == response.code
        assert (expected == 503) == ("Retry-After" in response.headers)
        assert b"Traceback" not in response.body
        assert b"ZeroDivision" not in response.body
        assert b"database" not in response.body


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param(413, "What you sent is too large.", id="413"),
        pytest.param(418, "We cannot answer this request.", id="any-other-4xx"),
        pytest.param(500, "Something went wrong on our side.", id="500"),
    ],
)
async def test_error_page_says_whose_trouble_it_is(alices: Browser, status: int, expected: str) -> None:
    """Only what is our trouble is called that."""
    page = await alices.get(f"/broken?status={status}")

    assert page.code == status
    assert f"<h1>{expected}</h1>" in page.body.decode()


@pytest.mark.gen_test
async def test_demo_page_shows_who_is_logged_in(alices: Browser, clock: ManualClock) -> None:
    """Without webapp_dir there is a page that connects, and every other path is a kind 404."""
    page = (await alices.get("/")).body.decode()
    missing = await alices.get("/nothing")

    assert "alice" in page
    assert 'data-deepstream-url="ws://localhost:6020/deepstream"' in page
    assert f'data-expires-at="{(int(clock.now()) + 12 * HOUR) * 1000}"' in page
    assert missing.code == 404
    assert "There is nothing at this address." in missing.body.decode()


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("is_renewed", "elapsed"),
    [
        pytest.param(False, 0, id="at-once"),
        pytest.param(False, 6 * HOUR, id="at-half"),
        pytest.param(True, 6 * HOUR + 1, id="after-half"),
        pytest.param(True, 12 * HOUR - 1, id="at-the-last-moment"),
    ],
)
async def test_page_renews_the_session_when_half_of_its_idle_time_has_gone(
    alices: Browser, clock: ManualClock, services: Services, is_renewed: bool, elapsed: int
) -> None:
    """Who uses the pages stays logged in."""
    before = alices.cookies["access_token"]
    clock.advance(elapsed)
    await services.feed.read()

    response = await alices.get("/")

    assert response.code == 200
    assert is_renewed == (session_cookie(response) is not None)
    assert is_renewed == (before != alices.cookies["access_token"])
    end = int(clock.now()) + 12 * HOUR if is_renewed else services.tokens.verify(before).expires_at
    assert f'data-expires-at="{end * 1000}"' in response.body.decode()


@pytest.mark.gen_test
async def test_scripts_and_proxies_do_not_renew_the_session(
    alices: Browser, clock: ManualClock, services: Services
) -> None:
    """Only a page that somebody loads, or an explicit renewal, moves the end."""
    clock.advance(11 * HOUR)
    await services.feed.read()

    for path in ("/session", "/auth/verify", "/secrets", "/"):
        assert session_cookie(await alices.ask(path)) is None
    for path in ("/session", "/auth/verify"):
        assert session_cookie(await alices.get(path)) is None


@pytest.mark.gen_test
async def test_page_is_shown_although_the_session_cannot_be_renewed(
    alices: Browser, clock: ManualClock, services: Services, sqlite_file: Path
) -> None:
    """A page does not fail for a database that is locked: the session is good as it is."""
    clock.advance(11 * HOUR)
    await services.feed.read()
    with closing(sqlite3.connect(sqlite_file)) as somebody_else:
        somebody_else.execute("BEGIN IMMEDIATE")

        response = await alices.get("/")

    assert response.code == 200
    assert session_cookie(response) is None


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"<h1>home</h1>", "/"),
        (b"<h1>home</h1>", "/index.html"),
        (b"let app", "/app.js"),
        (b"let app", "/app.js?v=1"),
        (b"<h1>sub</h1>", "/sub/"),
        (b"spacious", "/sub/with%20space.txt"),
    ],
)
async def test_webapp_dir_is_served_behind_the_login_only(
    folder: Path, alices: Browser, http_client: AsyncHTTPClient, body: bytes, path: str
) -> None:
    """Every file wants a session, and no cache keeps it."""
    stranger = Browser(http_client, alices.base_url)

    page, script = await stranger.get(path), await stranger.ask(path)
    own = await alices.get(path)

    assert (page.code, script.code) == (303, 401)
    assert body not in page.body + script.body
    assert (200, body) == (own.code, own.body)
    assert own.headers["Cache-Control"] == "no-store"
    assert "Etag" not in own.headers
    assert (await alices.fetch("HEAD", path, headers=PAGE)).code == 200


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e%2fsecret.txt",
        "/sub/../../secret.txt",
        "/..%5csecret.txt",
        "/%252e%252e/secret.txt",
        "/../www-old/secret.txt",
        "/..;/secret.txt",
        "/.%00./secret.txt",
        "/app.js%00.txt",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/%2f%2fevil.example/%2e%2e",
        "//evil.example/..",
        "/../tornado_ds.sqlite3",
        "/../keys.json",
        "/%ff%fe",
        "/" + "a" * 5000,
        "/nothing",
        "/empty/",
    ],
)
async def test_webapp_dir_shows_nothing_of_what_is_beside_it(folder: Path, alices: Browser, path: str) -> None:
    """No spelling of a path leaves the folder, leads to another site, or breaks the server."""
    response = await alices.get(path)

    assert response.code in (301, 400, 403, 404)
    assert b"hidden" not in response.body
    assert b"root:" not in response.body
    assert b"SQLite" not in response.body
    assert not response.headers.get("Location", "/x").startswith(("//", "http"))


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ["/sub", "/empty"])
async def test_webapp_dir_redirects_a_folder_only_with_a_session(
    folder: Path, alices: Browser, http_client: AsyncHTTPClient, path: str
) -> None:
    """Not even the names of folders are told to strangers."""
    stranger = await Browser(http_client, alices.base_url).get(path)
    own = await alices.get(path)

    assert stranger.headers["Location"].startswith("/login?next=")
    assert own.code in (301, 403, 404)
    assert own.headers.get("Location", f"{path}/") == f"{path}/"


@pytest.mark.gen_test
async def test_webapp_dir_leaves_our_own_routes_alone(folder: Path, alices: Browser, alice: User) -> None:
    """Login, session and styles are ours also when an app is served."""
    (folder / "session").write_text("mine")

    assert json_of(await alices.ask("/session"))["username"] == "alice"
    assert json_of(await alices.ask("/secrets"))["name"] == "alice"
    assert (await alices.ask("/static/style.css")).code == 200


@pytest.mark.gen_test
async def test_static_files_of_ours_are_for_everybody(browser: Browser) -> None:
    """The login page needs its style before anybody is logged in."""
    for path in ("/static/style.css", "/static/ds-auth.js", "/static/favicon.svg"):
        response = await browser.ask(path)
        assert (response.code, response.headers["Cache-Control"]) == (200, "no-cache")

    assert (await browser.ask("/static/../login.html")).code in (401, 403, 404)
    assert (await browser.ask("/static/%2e%2e/login.html")).code in (401, 403, 404)
    assert (await browser.ask("/static/nothing.css")).code == 404
