"""Nothing that a server writes or tells gives a password, token, cookie or key away, whatever it goes through."""

import json
import signal
import socket
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.canaries import leaks
from tests.live.servers import AuthServer, Response, fetch, wait_for
from tests.postgresql import upgrade_now
from tornado_ds import cli
from tornado_ds.storage.sql import SQLAlchemyUserStore
from tornado_ds.users import User

SECRET = "canary-0f1e2d3c4b5a69788796"
PASSWORD = "canary password of alice"
NEW_PASSWORD = "canary password of alice, another one"
WRONG = "canary wrong password"
AUTHORIZATION = f"Basic {b64encode(f'deepstream:{SECRET}'.encode()).decode()}"
FORM = "application/x-www-form-urlencoded"


class BrokenStore(SQLAlchemyUserStore):
    """The user store of the server under test: it fails in ways that nobody has thought of."""

    async def get(self, username: str) -> User | None:
        if username == "bug":
            raise RuntimeError("this store has a bug")
        if username == "table":
            async with self._database.transaction() as connection:
                # What the driver says of it names the value.
                await connection.exec_driver_sql("SELECT * FROM no_such_table WHERE password = 'canary'")
        return await super().get(username)


@pytest.fixture(params=["json on sqlite", "console on postgresql"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AuthServer]:
    """A server that tells all it knows, in each format, over each database; its user is alice."""
    log_format, _, database = request.param.partition(" on ")
    env = {
        "TORNADO_DS_LOG_FORMAT": log_format,
        "TORNADO_DS_LOG_LEVEL": "debug",
        "TORNADO_DS_USER_STORE": "tests.web.test_canaries:BrokenStore",
        "TORNADO_DS_WEBHOOK__CREDENTIALS_LOGIN": "true",
    }
    if database == "postgresql":
        url = request.getfixturevalue("empty_postgresql_url")
        upgrade_now(url)
        # The server trusts everybody, so any password is good.
        env["TORNADO_DS_DATABASE_URL"] = url.replace(":@", ":canary-of-the-database@")
    server = AuthServer(tmp_path, secret=SECRET, deepstream_port=1, env=env)
    server.cli("users", "add", "alice", "--password-stdin", text=f"{PASSWORD}\n")
    with server:
        yield server


def test_server_gives_nothing_away_whatever_it_goes_through(server: AuthServer, tmp_path: Path) -> None:
    """One session with all that people, devices, strangers and outages do to a server, at the level debug."""
    visit = Visit(server)

    visit.log_in_and_out()
    visit.ask_the_webhook()
    visit.send_malformed_requests()
    visit.look_at_the_figures()
    visit.fail()
    server.send(signal.SIGHUP)
    wait_for(lambda: "reloading" in server.output)
    server.stop()

    secrets = {*visit.tokens, *key_material(tmp_path / "data" / "keys.json")}
    assert len(visit.tokens) >= 3
    assert "connection allowed" in server.output
    assert "this store has a bug" in server.output
    assert leaks(server.output, secrets=secrets) == []
    assert leaks(visit.told, secrets=secrets) == []


class Visit:
    """Somebody who tries everything; keeps what the server told, and the tokens that it gave."""

    def __init__(self, server: AuthServer) -> None:
        self._server = server
        self._internal = f"http://{server.internal}"
        self._ports = [urlsplit(url).port for url in (server.url, self._internal)]
        self.told = ""
        self.tokens: set[str] = set()

    def log_in_and_out(self) -> None:
        """Forms and JSON, right and wrong, until the server has had enough; then the account, and out."""
        cookie = self._log_in("alice", PASSWORD).cookies[0]
        self._log_in(PASSWORD, PASSWORD)
        self._submit("/handle-login", b"username=alice&password=canary%ff")
        self._submit("/handle-login", b'{"password": "canary', content_type="application/json")
        self._submit("/account/password", _form(current_password=WRONG, new_password=NEW_PASSWORD), cookie=cookie)
        self._submit("/account/password", _form(current_password=PASSWORD, new_password=NEW_PASSWORD), cookie=cookie)
        for _ in range(7):
            self._log_in("alice", WRONG)
        for path in ("/", "/login?next=/%3Ftoken=canary", "/nothing?password=canary", "/auth/verify", "/session"):
            fetch(self._server.url + path, headers={"Cookie": cookie})
        for path in ("/login?next=%ffcanary", "/login?notice=%ffcanary", "/account?notice=%ffcanary"):
            fetch(self._server.url + path, headers={"Cookie": cookie})
        self._submit("/logout", b"", cookie=cookie, origin="https://evil.example")
        self._submit("/logout", b"", cookie=cookie)

    def ask_the_webhook(self) -> None:
        """Every shape of question, from deepstream and from somebody who is not."""
        token = self._server.cli("sessions", "open", "alice", "--lifetime", "1h").strip()
        self.tokens.add(token)
        cookie, origin = f"x=canary; access_token={token}", self._server.url
        questions: list[tuple[dict[str, Any], Any]] = [
            ({"headers": {"cookie": cookie, "origin": origin}}, {}),
            ({"headers": {"cookie": cookie, "origin": "https://evil.example"}}, {}),
            ({"headers": {"cookie": f"access_token={token}x", "origin": origin}}, {}),
            ({"headers": {"cookie": "access_token=canary", "origin": origin}}, {}),
            ({"headers": {"origin": origin}, "url": "/api"}, {"token": token}),
            ({"headers": {}, "url": "/api/auth"}, {"token": f"{token[:-4]}AAAA"}),
            ({}, {"username": "nobody", "password": WRONG}),
            ({}, {"username": WRONG, "password": ["canary"]}),
            ({}, "canary"),
        ]
        for address in (self._internal, self._server.url):
            for connection, auth in questions:
                self._ask(address, {"connectionData": connection, "authData": auth})
            self._ask(address, {"canary": "canary"}, authorization="Basic Y2FuYXJ5OmNhbmFyeQ==")
            self._ask(f"{address}/check-token?token={token}", {}, authorization=f"canary {token}")
            self._get(f"{address}/check-token?token={token}")

    def send_malformed_requests(self) -> None:
        """Octets that are no HTTP, with secrets where they should not be."""
        token = min(self.tokens)
        heads = [
            f"GET /?token={token} HTTP/1.1\r\nHost: localhost\r\nCookie: access_token={token}\x00\r\n\r\n",
            f"GET /?token={token} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {AUTHORIZATION}\x01\r\n\r\n",
            f"GET / HTTP/1.1\r\nHost: localhost\r\naccess_token={token}: x\r\n\r\n",
            f"GET / HTTP/1.1\r\nHost: localhost\r\naccess_token={token}\r\n\r\n",
            f"GET / HTTP/1.1\r\nHost: {token} {SECRET}\r\n\r\n",
            f"GET / HTTP/1.1\r\nHost: {SECRET}, {token}\r\n\r\n",
            f"{SECRET} {token}\r\n\r\n",
            f"GET /?{token} HTTP/{SECRET}\r\n\r\n",
            f"GET http://deepstream:{SECRET}@localhost/?{token} HTTP/1.1\r\nHost: [\r\n\r\n",
            f"POST /handle-login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9, {SECRET}\r\n\r\n{PASSWORD}",
            f"POST /handle-login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{PASSWORD}\r\n",
            f"POST /check-token HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: {SECRET}\r\n\r\n{token}",
            f"POST /handle-login HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary={SECRET}"
            f"\r\nContent-Length: {len(PASSWORD)}\r\nConnection: close\r\n\r\n{PASSWORD}",
            f"POST /handle-login HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: {SECRET}\r\nConnection: close"
            f"\r\nContent-Length: {len(PASSWORD)}\r\n\r\n{PASSWORD}",
        ]
        for port in self._ports:
            for head in heads:
                self.told += _send(port, head)

    def look_at_the_figures(self) -> None:
        """All that monitoring gets to see."""
        for path in ("/metrics?token=canary", "/readyz", "/healthz", "/nothing?token=canary"):
            self._get(self._internal + path)

    def fail(self) -> None:
        """Errors that have a traceback, and a database that refuses a statement."""
        for name in ("bug", "table"):
            self._note(self._log_in(name, PASSWORD))
            question = {"connectionData": {}, "authData": {"username": name, "password": PASSWORD}}
            self._ask(self._internal, question)
            self._ask(self._server.url, question)

    def _log_in(self, username: str, password: str) -> Response:
        return self._submit("/handle-login", _form(username=username, password=password))

    def _submit(
        self, path: str, body: bytes, *, cookie: str = "", origin: str | None = None, content_type: str = FORM
    ) -> Response:
        headers = {"Content-Type": content_type, "Cookie": cookie, "Origin": origin or self._server.url}
        response = fetch(f"{self._server.url}{path}?token=canary", method="POST", headers=headers, body=body)
        self.tokens |= {cookie.partition("=")[2] for cookie in response.cookies if len(cookie) > 40}
        return response

    def _get(self, url: str) -> Response:
        return self._note(fetch(url, headers={"Authorization": AUTHORIZATION}))

    def _ask(self, url: str, body: dict[str, Any], *, authorization: str = AUTHORIZATION) -> Response:
        url = url if "/check-token" in url else f"{url}/check-token"
        return self._note(fetch(url, method="POST", headers={"Authorization": authorization}, body=body))

    def _note(self, response: Response) -> Response:
        self.told += response.body.decode(errors="replace")
        return response


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param("webhook: {secret: canary}", id="secret-short"),
        pytest.param("webhook: {secret: my-secret-canary-0123456789abcdef}", id="secret-telltale"),
        pytest.param("webhook: {secret: [canary]}", id="secret-list"),
        pytest.param("webhook: canary", id="secret-misplaced"),
        pytest.param("webhook: {secret: canary-0123456789abcdefghij", id="yaml-unfinished"),
        pytest.param("webhook: secret: canary-0123456789abcdefghij", id="yaml-wrong"),
        pytest.param("webhook: {secret: 'canary-0123456789abcdefghij}", id="yaml-quote"),
        pytest.param("webhook: {secret: *canary-0123456789abcdefghij}", id="yaml-alias"),
        pytest.param("webhook: {secret: !canary 0123456789abcdefghij}", id="yaml-tag"),
        pytest.param('webhook: {secret: "canary\\q"}', id="yaml-escape"),
        pytest.param("webhook: {secret: canary-\x07}", id="yaml-control"),
        pytest.param("database_url: mysql://u:canary@h/x", id="database-unknown"),
        pytest.param("database_url: 'postgresql://u:canary@h:port/x'", id="database-port"),
        pytest.param("database_url: 'postgresql://u:canary@127.0.0.1:1/x'", id="database-away"),
        pytest.param("database_url: 'postgresql//u:canary@h/x'", id="database-no-url"),
        pytest.param("database_url: 'sqlite:////nowhere/canary?password=canary'", id="database-file"),
        pytest.param("public_url: https://u:canary@example.com", id="url-with-password"),
        pytest.param("deepstream_url: https://u:canary@example.com", id="deepstream-url"),
    ],
)
def test_message_of_a_command_gives_nothing_away_when_settings_are_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command_settings: object, log_format: str, content: str
) -> None:
    """The line that names the key does not repeat its value."""
    file = tmp_path / "settings.yml"
    file.write_text(f"log_format: {log_format}\n{content}\n")
    file.chmod(0o600)

    codes = [cli.run(["--config", str(file), *command]) for command in (["config", "show"], ["users", "list"])]

    output = capsys.readouterr()
    assert 1 in codes
    assert leaks(output.out + output.err) == []


def key_material(file: Path) -> set[str]:
    """Every secret that a key file holds."""
    return {str(value) for key in json.loads(file.read_text())["keys"] for name, value in key.items() if name in "dk"}


def _form(**fields: str) -> bytes:
    return urlencode(fields).encode()


def _send(port: int | None, octets: str) -> str:
    """Return what the server says to *octets* before it hangs up."""
    with socket.create_connection(("127.0.0.1", port or 0), timeout=10) as connection:
        connection.sendall(octets.encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionError:
            pass
    return answer.decode("latin-1")
