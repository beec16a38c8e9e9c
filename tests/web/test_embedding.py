import http.client
import json
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.live.servers import AuthServer, Server, fetch, free_port, wait_for
from tests.web.browser import Browser
from tornado_ds.gate import MAX_BODY_BYTES
from tornado_ds.handlers.base import BaseHandler
from tornado_ds.handlers.routes import WebApplication, make_app
from tornado_ds.services import Services

PAGE = Path(__file__).parents[2] / "docs" / "embedding.md"
PASSWORD = "correct horse battery staple"
SECRET = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"

USERS = [
    {"username": "alice", "password": PASSWORD, "roles": ["editor"]},
    {"username": "bob", "password": PASSWORD, "roles": ["reader"]},
]

HTML = {"Accept": "text/html"}

UPLOAD = {"Content-Type": "multipart/form-data; boundary=a"}
FILE = b'--a\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\n%b\r\n--a--\r\n'


class PhotoHandler(BaseHandler):
    """A handler of somebody else, which takes files."""

    async def post(self) -> None:
        [photo] = self.request.files["photo"]
        self.write_json({"name": photo.filename, "size": len(photo.body)})


@pytest.fixture
def app(services: Services) -> WebApplication:
    """An application of somebody else around ours."""
    return make_app(services, extra_handlers=[(r"/photos", PhotoHandler)])


@pytest.mark.gen_test
async def test_upload_reaches_a_handler_of_the_embedder(browser: Browser) -> None:
    """What our own handlers refuse is theirs to allow, and nothing global stands in the way."""
    response = await browser.fetch("POST", "/photos", headers=UPLOAD, body=FILE % b"pixels")

    assert response.code == 200
    assert json.loads(response.body) == {"name": "a.png", "size": 6}


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ["/photos", "/handle-login", "/nowhere"])
async def test_upload_is_too_large_like_any_other_body(browser: Browser, path: str) -> None:
    """Its size is looked at first."""
    response = await browser.fetch("POST", path, headers=UPLOAD, body=FILE % (b"x" * MAX_BODY_BYTES))

    assert response.code == 413


@pytest.fixture
def usual(tmp_path: Path) -> AuthServer:
    """The usual server over the same data, which is not started: its settings and commands are those of the program."""
    usual = AuthServer(tmp_path, secret=SECRET, deepstream_port=free_port())
    usual.cli("seed", "-", text=json.dumps(USERS))
    return usual


@pytest.fixture
def shop(tmp_path: Path, usual: AuthServer) -> Iterator[Server]:
    """The program of the page, as it stands there, running."""
    [program] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "shop.py").write_text(program, encoding="utf-8")
    shop = Server(
        [sys.executable, str(tmp_path / "shop.py")],
        env=usual.settings,
        log=tmp_path / "shop.log",
        ready=f"http://{usual.internal}/readyz",
    )
    with shop:
        yield shop


@pytest.mark.usefixtures("shop")
def test_program_of_the_page_protects_its_routes_when_it_is_run_as_it_stands(usual: AuthServer) -> None:
    """Whoever copies the program gets what the page says: prices for all, orders by login, changes by role."""
    cookies = {name: {"Cookie": usual.log_in(name, PASSWORD)} for name in ("alice", "bob")}
    orders = f"{usual.url}/orders"
    page = fetch(orders, headers=HTML)

    assert fetch(f"{usual.url}/prices").json() == {"apple": 3, "pear": 4}
    assert page.status == 303
    assert ("Location", "/login?next=%2Forders") in page.headers
    assert fetch(orders).json() == {"error": "not_logged_in"}
    assert fetch(orders, headers=cookies["bob"]).json() == {"customer": "bob", "orders": []}
    assert fetch(orders, method="POST", headers=cookies["bob"]).status == 403
    assert fetch(orders, method="POST", headers=cookies["alice"]).json() == {"taken": True}
    evil = cookies["alice"] | {"Sec-Fetch-Site": "cross-site"}
    assert fetch(orders, method="POST", headers=evil).status == 403


def test_program_of_the_page_answers_a_login_in_flight_when_it_is_told_to_stop(usual: AuthServer, shop: Server) -> None:
    """SIGTERM lets nobody else in, whoever has asked is answered, and the program ends well."""
    body = json.dumps({"username": "alice", "password": PASSWORD}).encode()
    headers = {"Accept": "application/json", "Content-Type": "application/json", "Content-Length": str(len(body))}
    login = http.client.HTTPConnection(usual.url.removeprefix("http://"), timeout=20)
    login.request("POST", "/handle-login", body[:10], headers)

    with ThreadPoolExecutor() as pool:
        stopping = pool.submit(shop.stop)
        wait_for(lambda: is_closed(usual))
        login.send(body[10:])
        status = login.getresponse().status
        login.close()
        stopping.result()

    assert status == 200


def is_closed(server: AuthServer) -> bool:
    """True once nobody can connect any more."""
    try:
        fetch(f"{server.url}/prices")
    except OSError:
        return True
    return False
