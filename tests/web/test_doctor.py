"""`doctor` against a real server, behind proxies that are set up badly, and against what is no server of ours."""

import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.netutil import bind_sockets
from tornado.platform.asyncio import AsyncIOLoop
from tornado.web import Application
from tornado.websocket import WebSocketHandler

from tests.commands import make_secrets
from tests.fakes import ManualClock
from tests.web.conftest import SECRET
from tests.web.reverse_proxy import Passed, Rules, parrot, reverse_proxy
from tornado_ds import cli
from tornado_ds.app import open_services
from tornado_ds.clock import Clock, SystemClock
from tornado_ds.doctor.examination import examine
from tornado_ds.doctor.findings import Finding
from tornado_ds.doctor.targets import basic_auth
from tornado_ds.handlers.routes import make_app, make_internal_app
from tornado_ds.listeners import InternalListener, PublicListener
from tornado_ds.settings import Address, PasswordSettings, Settings, WebhookSettings, webhook_secret

HOST = "127.0.0.1"
AUTHORITY = f"http://deepstream:{SECRET}@"


class Installation:
    """A server, a proxy before its pages, and what stands for deepstream; all on free ports."""

    def __init__(self, settings: Settings, internal: str) -> None:
        self.settings = settings
        self.internal = internal

    async def examine(self, url: str | None = None, *, clock: Clock | None = None) -> Sequence[Finding]:
        """All that is to be said."""
        found = await examine(self.settings, internal=self.internal, url=url, config=None, clock=clock or SystemClock())
        assert SECRET not in str(found)
        assert all(finding.advice for finding in found if finding.level != "ok")
        return found


class _Deepstream(WebSocketHandler):
    def check_origin(self, origin: str) -> bool:
        return True


@asynccontextmanager
async def installed(folder: Path, rules: Rules | None = None) -> AsyncIterator[Installation]:
    """An installation whose pages are reached through a proxy with *rules*."""
    socks = {name: bind_sockets(0, HOST) for name in ("public", "internal", "deepstream", "proxy")}
    ports = {name: found[0].getsockname()[1] for name, found in socks.items()}
    settings = Settings(
        data_dir=folder,
        public_url=f"http://{HOST}:{ports['proxy']}",
        listen=Address(HOST, ports["public"]),
        internal_listen=Address(HOST, ports["internal"]),
        deepstream_url=f"ws://{HOST}:{ports['deepstream']}/deepstream",
        trusted_proxies=(HOST,),
        webhook=WebhookSettings(secret=SECRET),  # type: ignore[arg-type]
        # A cost that is not complained about; nobody has a password here.
        passwords=PasswordSettings(bcrypt_cost=10),
    )
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(open_services(settings))
        await services.feed.read()
        for listener in (
            PublicListener(make_app(services), socks["public"]),
            InternalListener(make_internal_app(services), socks["internal"]),
        ):
            await listener.start()
            stack.push_async_callback(listener.drain)
        deepstream = HTTPServer(Application([(".*", _Deepstream)]))
        deepstream.add_sockets(socks["deepstream"])
        stack.callback(deepstream.stop)
        stack.callback(services.feed.close)
        behind = f"http://{HOST}:{ports['public']}"
        await stack.enter_async_context(reverse_proxy(behind, rules or Rules(), socks["proxy"][0]))
        yield Installation(settings, f"http://{HOST}:{ports['internal']}")


@pytest.fixture
def folder(sqlite_file: Path) -> Path:
    """A data folder with a database, as the server leaves it."""
    sqlite_file.parent.chmod(0o700)
    return sqlite_file.parent


def bad(found: Sequence[Finding]) -> list[str]:
    """Level, topic and text of all that is not well, but for the users that there are none of."""
    lines = [f"{finding.level} {finding.topic}: {finding.text}" for finding in found if finding.level != "ok"]
    return [line for line in lines if not line.startswith("warning users")]


def status(code: int, *, page: bool = False) -> Callable[[Passed], None]:
    """Every answer has this status; with *page* it is one."""

    def change(passed: Passed) -> None:
        passed.status = code
        if page:
            passed.headers["Content-Type"] = "text/html"
            passed.body = b"<html>"

    return change


def redirect(passed: Passed) -> None:
    passed.status = 302
    passed.headers["Location"] = "https://elsewhere.example/login"


def text(code: int, body: bytes) -> Callable[[Passed], None]:
    def change(passed: Passed) -> None:
        if passed.status == 403:
            passed.status, passed.body = code, body

    return change


def without(name: str) -> Callable[[Passed], object]:
    return lambda passed: passed.headers.pop(name, None)


def cookie(old: str, new: str) -> Callable[[Passed], None]:
    def change(passed: Passed) -> None:
        cookies = [value.replace(old, new) for value in passed.headers.get_list("Set-Cookie")]
        passed.headers.pop("Set-Cookie", None)
        for value in cookies:
            passed.headers.add("Set-Cookie", value)

    return change


def figures(passed: Passed) -> None:
    if passed.request.path == "/metrics":
        passed.status, passed.body = 200, b"# HELP"


def authorize(request: HTTPServerRequest) -> None:
    request.headers["Authorization"] = basic_auth(f"deepstream:{SECRET}")


def no_body(request: HTTPServerRequest) -> None:
    request.body = b"{}"


@pytest.mark.gen_test
async def test_nothing_is_wrong_when_all_is_well(folder: Path) -> None:
    """Every check has its line, through a proxy that passes on what it gets."""
    async with installed(folder) as installation:
        direct = await installation.examine()
        through = await installation.examine(installation.settings.public_url)

    assert [] == bad(direct) == bad(through)
    topics = ["files", "deepstream_url", "passwords", "limits", "database", "users", "server", "clock", "webhook"]
    topics += ["origin", "session feed", "public_url", "cookie"]
    assert topics == list(dict.fromkeys(finding.topic for finding in direct))


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        pytest.param(Rules(answer=redirect), "wrong webhook: {url} redirects (302 to 'https://else", id="redirect"),
        pytest.param(
            Rules(answer=status(200, page=True)), "wrong webhook: {url} answers 200 with a page (HTML): deep", id="page"
        ),
        pytest.param(
            Rules(answer=status(404, page=True)), "wrong webhook: {url} answers 404 with a page", id="other-page"
        ),
        pytest.param(
            Rules(answer=status(200)), "wrong webhook: {url} answers 200 to somebody without a session", id="all-well"
        ),
        pytest.param(Rules(answer=status(502)), "wrong webhook: {url} answers 502 where 401", id="bad-gateway"),
        pytest.param(Rules(request=authorize), "wrong webhook: {url} takes no secret", id="secret-added"),
        pytest.param(
            Rules(request=lambda request: request.headers.pop("Authorization", None)),
            "wrong webhook: {url} refuses the secret",
            id="secret-lost",
        ),
        pytest.param(
            Rules(answer=text(400, b"no")),
            "wrong webhook: asked about a socket without a cookie, it answers 400 'no' instead of 403 not_logged_in; ",
            id="other-status",
        ),
        pytest.param(
            Rules(request=no_body),
            "wrong webhook: asked about a made-up token, it answers 403 'not_logged_in' instead of 403 session_invalid",
            id="body-lost",
        ),
        pytest.param(
            Rules(answer=without("X-Content-Type-Options")),
            "warning webhook: security headers are missing or changed on the way: X-Content-Type-Options",
            id="header-lost",
        ),
    ],
)
async def test_webhook_is_wrong_when_a_proxy_changes_what_it_says(folder: Path, rules: Rules, expected: str) -> None:
    """The line says what deepstream would make of it."""
    async with installed(folder) as installation, reverse_proxy(installation.internal, rules) as url:
        found = await installation.examine(url)

    line = expected.format(url=f"{url}/check-token")
    assert [line] == [text[: len(line)] for text in bad(found)]


@pytest.mark.gen_test
async def test_origin_is_wrong_when_pages_of_strangers_may_connect(folder: Path) -> None:
    """As if the server took every origin."""
    async with installed(folder) as installation:
        ours = installation.settings.public_url.encode()

        def pose_as_ours(request: HTTPServerRequest) -> None:
            request.body = request.body.replace(b"https://doctor.invalid", ours)

        async with reverse_proxy(installation.internal, Rules(request=pose_as_ours)) as url:
            found = await installation.examine(url)

    assert [
        "wrong origin: a page of another site is not refused ('session_invalid'):"
        " it could connect with your user's cookie"
    ] == bad(found)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("public_url", "expected"),
    [
        pytest.param("http://127.0.0.1:1", "pages at http://127.0.0.1:1 may not connect ('origin_denied')", id="port"),
        pytest.param("https://127.0.0.1", "the server looks for a cookie of another name", id="https"),
    ],
)
async def test_origin_is_wrong_when_the_server_was_not_restarted(folder: Path, public_url: str, expected: str) -> None:
    """It runs with the settings of before."""
    async with installed(folder) as installation:
        installation.settings = installation.settings.model_copy(update={"public_url": public_url})
        found = await installation.examine()

    assert [expected] == [line.text[: len(expected)] for line in found if line.topic == "origin"]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        pytest.param(Rules(answer=redirect), "wrong public_url: {url} redirects to 'https://else", id="redirect"),
        pytest.param(Rules(answer=status(502)), "wrong public_url: {url} answers 502: the proxy", id="bad-gateway"),
        pytest.param(Rules(answer=status(404)), "wrong public_url: {url}/login answers 404", id="not-there"),
        pytest.param(
            Rules(answer=without("Content-Security-Policy")),
            "warning public_url: security headers are missing or changed on the way: Content-Security-Policy",
            id="header-lost",
        ),
        pytest.param(
            Rules(answer=without("Set-Cookie")), "wrong cookie: POST {url}/logout answers 303 without", id="cookie-lost"
        ),
        pytest.param(
            Rules(answer=cookie("HttpOnly", "x")), "wrong cookie: the session's cookie lost HttpOnly", id="http-only"
        ),
        pytest.param(
            Rules(answer=cookie("SameSite=Lax", "SameSite=None; Secure")),
            "wrong cookie: the session's cookie is Secure, so browsers drop it over http, lost SameSite=Lax",
            id="same-site",
        ),
        pytest.param(
            Rules(answer=cookie("Path=/", "Path=/auth; Domain=example.com")),
            "wrong cookie: the session's cookie lost Path=/, has a Domain",
            id="path-and-domain",
        ),
        pytest.param(
            Rules(answer=cookie("access_token", "__Host-access_token")),
            "wrong cookie: the session's cookie has another name than access_token",
            id="name",
        ),
        pytest.param(
            Rules(answer=figures),
            "wrong public_url: {url}/metrics shows the figures",
            id="figures-are-public",
        ),
    ],
)
async def test_pages_are_wrong_when_a_proxy_changes_them(folder: Path, rules: Rules, expected: str) -> None:
    """And the webhook, which is asked directly, is not."""
    async with installed(folder, rules) as installation:
        found = await installation.examine()

    line = expected.format(url=installation.settings.public_url)
    assert [line] == [text[: len(line)] for text in bad(found)]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="ssh"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort", id="cut-off"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", id="bad-length"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"x" * 100_000, id="endless-head"),
        pytest.param(b"HTTP/1.1 403 Forbidden\r\nDate: soon\r\nContent-Length: 2\r\n\r\n\xff\x1b", id="no-text"),
        pytest.param(b"\x16\x03\x01" * 99, id="tls"),
    ],
)
async def test_webhook_is_wrong_when_something_else_answers(folder: Path, octets: bytes) -> None:
    """Whatever it says, there is a line about it."""
    async with installed(folder) as installation, parrot(octets) as url:
        installation.internal = url
        found = await installation.examine(url)

    assert any(line.startswith(("wrong webhook: ", "wrong server: ")) for line in bad(found))


@pytest.mark.gen_test
async def test_rest_is_left_out_when_the_server_is_down(folder: Path) -> None:
    """What does not need it is still said."""
    async with installed(folder) as installation:
        pass

    found = await installation.examine()

    [line] = bad(found)
    assert f"wrong server: nothing answers at {installation.internal}: Connection refused" == line
    assert {"files", "database", "passwords"} <= {finding.topic for finding in found}


@pytest.mark.gen_test
async def test_webhook_is_wrong_when_nobody_answers_there(folder: Path) -> None:
    """The rest is still asked of the server itself."""
    async with installed(folder) as installation:
        found = await installation.examine(f"http://{HOST}:1/check-token")

    assert [f"wrong webhook: http://{HOST}:1/check-token does not answer: Connection refused"] == bad(found)


@pytest.mark.gen_test
async def test_clock_is_wrong_when_the_machines_differ(folder: Path) -> None:
    """The server's is read from its answers."""
    async with installed(folder) as installation:
        found = await installation.examine(clock=ManualClock(SystemClock().now() + 604))

    [line] = bad(found)
    assert re.fullmatch(r"wrong clock: the server is 60\d s behind this machine", line)


@pytest.mark.gen_test
async def test_little_is_asked_when_nothing_is_known_here(folder: Path, tmp_path: Path) -> None:
    """On another machine the settings are not those of the server, and nobody pretends that they are."""
    async with installed(folder) as installation:
        url = installation.internal
        elsewhere = Installation(Settings(data_dir=tmp_path / "none"), "http://127.0.0.1:1")
        found = await elsewhere.examine(url)

    assert [
        f"warning files: there is no data_dir {tmp_path / 'none'}, so no server has run here with these settings",
        f"warning webhook: {url}/check-token wants the secret, which is not known here: no more was tried",
        f"warning session feed: {url}/session-events wants the secret, which is not known here",
    ] == bad(found)


@pytest.fixture
def environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Settings in the environment, for commands, with the files of a first start; nobody listens there."""
    port = bind_sockets(0, HOST)[0]
    monkeypatch.setenv("TORNADO_DS_DATA_DIR", str(folder))
    monkeypatch.setenv("TORNADO_DS_INTERNAL_LISTEN", f"{HOST}:{port.getsockname()[1]}")
    port.close()
    make_secrets(Settings(), now=1)
    return monkeypatch


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Code, output and errors of the command."""
    code = cli.run(["doctor", *arguments])
    output = capsys.readouterr()
    return code, output.out, output.err


@pytest.mark.parametrize("arguments", [[], ["--uws"], ["--secret-from-env"]], ids=["default", "uws", "from-env"])
def test_our_own_config_has_no_mistakes_when_it_is_pasted(
    environment: pytest.MonkeyPatch, folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """What `deepstream-config` prints is a whole config.yml, once a first start has made the secret."""
    webhook_secret(Settings())
    assert cli.run(["deepstream-config", *arguments]) == 0
    (folder / "config.yml").write_text(capsys.readouterr().out)
    (folder / "permissions.yml").write_text("{}")

    _, out, _ = run(capsys, "--json", "--deepstream-config", str(folder / "config.yml"))

    assert ["ok"] == [found["level"] for found in json.loads(out) if found["topic"] == "deepstream config"]


def test_our_own_config_has_no_mistakes_when_it_is_taken_as_it_is(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor has config/deepstream/config.yml, once a secret is there."""
    environment.setenv("TORNADO_DS_WEBHOOK__SECRET", SECRET)
    file = Path(__file__).parents[2] / "config" / "deepstream" / "config.yml"

    _, out, _ = run(capsys, "--json", "--deepstream-config", str(file))

    assert ["ok"] == [found["level"] for found in json.loads(out) if found["topic"] == "deepstream config"]


def test_command_prints_lines_and_fails_when_something_is_wrong(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For people a table with what to do, for scripts an array, and 1 for both."""
    code, out, err = run(capsys)
    json_code, json_out, _ = run(capsys, "--json")

    rows: list[dict[str, Any]] = json.loads(json_out)
    assert (1, 1) == (code, json_code)
    assert f"error: 1 of {len(rows)} findings is wrong\n" == err
    assert {("level", "topic", "text", "advice")} == {tuple(row) for row in rows}
    assert "server" == next(row["topic"] for row in rows if row["level"] == "wrong")
    assert "-> Start it: python -m tornado_ds." in out


def test_settings_are_wrong_when_nothing_can_be_done_with_them(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One finding says so."""
    environment.setenv("TORNADO_DS_LISTEN", "nowhere")

    code, out, _ = run(capsys, "--json")

    [found] = json.loads(out)
    assert (1, "wrong", "settings") == (code, found["level"], found["topic"])
    assert "listen" in found["text"]


def test_database_is_lost_when_its_file_is_empty(
    environment: pytest.MonkeyPatch, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To say that it lacks its tables would lead to an empty one, for which ended sessions count again."""
    file = folder / "tornado_ds.sqlite3"
    file.write_bytes(b"")

    _, out, _ = run(capsys, "--json")

    [found] = [found for found in json.loads(out) if found["topic"] == "database"]
    assert found["level"] == "wrong"
    assert "has keys but no database" in found["text"]
    assert file.read_bytes() == b""


def test_everything_else_is_examined_when_nobody_says_what_stands_in_front_of_a_unix_socket(
    environment: pytest.MonkeyPatch, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named as a warning, also where deepstream's config.yml does not say it; if that does, it is asked."""
    environment.setenv("TORNADO_DS_INTERNAL_LISTEN", "unix:internal.sock")
    config = folder / "config.yml"
    config.write_text("auth: [{type: http, options: {endpointUrl: 'http://127.0.0.1:1/check-token'}}]")
    empty = folder / "empty.yml"
    empty.write_text("auth: []")

    topics = []
    for arguments in ([], ["--deepstream-config", str(empty)], ["--deepstream-config", str(config)]):
        _, out, _ = run(capsys, "--json", *arguments)
        topics.append({(found["topic"], found["level"]) for found in json.loads(out)})

    assert all({("files", "ok"), ("database", "ok")} <= found for found in topics)
    assert [("internal_listen", "warning") in found for found in topics] == [True, True, False]
    assert [("server", "wrong") in found for found in topics] == [False, False, True]


@pytest.mark.parametrize(
    "url", ["", "auth.example.com", "ftp://a/", "http://[", "http://a b/", "http://a:0/", f"{AUTHORITY}ä/"]
)
def test_command_fails_in_one_line_when_the_url_is_none(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    """Which does not repeat the secret that may be in it."""
    code, out, err = run(capsys, url)

    assert (1, "", 1) == (code, out, err.count("\n"))
    assert "write http://host:port/check-token" in err
    assert SECRET not in err


def test_command_succeeds_when_nothing_is_wrong(
    io_loop: AsyncIOLoop, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Warnings are no failure."""

    async def beside_the_server() -> int:
        async with installed(folder) as installation:
            settings = installation.settings
            environment = {
                "DATA_DIR": folder,
                "PUBLIC_URL": settings.public_url,
                "LISTEN": settings.listen,
                "INTERNAL_LISTEN": settings.internal_listen,
                "DEEPSTREAM_URL": settings.deepstream_url,
                "TRUSTED_PROXIES": HOST,
                "WEBHOOK__SECRET": SECRET,
            }
            for name, value in environment.items():
                monkeypatch.setenv(f"TORNADO_DS_{name}", str(value))
            code: int = await io_loop.run_in_executor(None, cli.run, ["doctor"])
            return code

    code = io_loop.run_sync(beside_the_server)

    output = capsys.readouterr()
    assert (0, "") == (code, output.err)
    assert "warning  users" in output.out
