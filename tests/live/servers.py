"""The real servers, as subprocesses on free ports: started when needed, stopped whatever happens."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from tests.commands import run_command

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
DEEPSTREAM_CONFIG = ROOT / "config" / "deepstream"
DEEPSTREAM = ROOT / "node_modules" / "@deepstream" / "server" / "dist" / "bin" / "deepstream"
CLIENT_SCRIPT = ROOT / "node_modules" / "@deepstream" / "client" / "dist" / "bundle" / "ds.min.js"

NODE = shutil.which("node") or "node"

# The addresses in our config.yml.
_WEBHOOK = "http://deepstream:${TORNADO_DS_WEBHOOK__SECRET}@${TORNADO_DS_INTERNAL_LISTEN}/check-token"
_FEED = "http://${TORNADO_DS_INTERNAL_LISTEN}/session-events"


@dataclass(frozen=True, slots=True)
class Response:
    """What a server answered; redirects are not followed."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes

    @property
    def cookies(self) -> list[str]:
        """The cookies that it sets, each as `name=value`."""
        return [value.partition(";")[0] for name, value in self.headers if name.lower() == "set-cookie"]

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


def fetch(url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: object = None) -> Response:
    """Return the answer to one request; a *body* goes out as it is if it is bytes, else as JSON."""
    parts = urlsplit(url)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body)
    content = {"Content-Type": "application/json"} if isinstance(data, str) else {}
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        target = parts._replace(scheme="", netloc="", path=parts.path or "/").geturl()
        connection.request(method, target, body=data, headers={**content, **(headers or {})})
        response = connection.getresponse()
        return Response(response.status, response.getheaders(), response.read())
    finally:
        connection.close()


def wait_for(probe: Callable[[], T], *, seconds: float = 60) -> T:
    """Return the first true value of *probe*, which is asked again and again."""
    deadline = time.monotonic() + seconds
    while not (value := probe()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so within {seconds} s")
        time.sleep(0.02)
    return value


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def session_cookie(response: Response) -> str:
    """Return the session's cookie, as it goes into a Cookie header."""
    return next(cookie for cookie in response.cookies if cookie.startswith("access_token="))


class Server:
    """
    A server that runs inside a `with` block, or between `start` and `stop`.

    It is up when *ready*, a URL, answers 200. When it does not start, or does not
    stop with exit code 0 on *stop_signal*, the error holds its output.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        ready: str,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self._command = command
        self._env = env
        self._log = log
        self._ready = ready
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> str:
        """All that it has written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def start(self) -> None:
        """Start, and return when it is up."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env={**_clean_environment(), **self._env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_for(self._is_up)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop as an operator would; it has to end well."""
        if self._process is None:
            return
        self._process.send_signal(self._stop_signal)
        try:
            code = self._process.wait(20)
        finally:
            self.kill()
        assert code == 0, f"exit code {code}\n{self.output}"

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Stop at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill() if exc else self.stop()

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"it did not start\n{self.output}"
        try:
            return fetch(self._ready).status == 200
        except OSError:
            return False


class AuthServer(Server):
    """`python -m tornado_ds` with its own data folder; `env` adds settings to it."""

    def __init__(
        self, folder: Path, *, secret: str, deepstream_port: int, env: Mapping[str, str] | None = None
    ) -> None:
        port, internal_port = free_port(), free_port()
        self.url = f"http://localhost:{port}"
        self.internal = f"127.0.0.1:{internal_port}"
        self.settings = {
            "TORNADO_DS_LISTEN": f"127.0.0.1:{port}",
            "TORNADO_DS_INTERNAL_LISTEN": self.internal,
            "TORNADO_DS_PUBLIC_URL": self.url,
            "TORNADO_DS_DATA_DIR": str(folder / "data"),
            "TORNADO_DS_DEEPSTREAM_URL": f"ws://localhost:{deepstream_port}/deepstream",
            "TORNADO_DS_PASSWORDS__BCRYPT_COST": "4",
            "TORNADO_DS_PASSWORDS__ALLOW_WEAK_COST": "true",
            "TORNADO_DS_WEBHOOK__SECRET": secret,
            **(env or {}),
        }
        self._folder = folder
        self._secret = secret
        self._deepstream_port = deepstream_port
        super().__init__(
            [sys.executable, "-m", "tornado_ds"],
            env=self.settings,
            log=folder / f"auth-{port}.log",
            ready=f"http://{self.internal}/readyz",
        )

    def sibling(self, env: Mapping[str, str]) -> "AuthServer":
        """Return another server over the same data, on other ports, with other settings."""
        return AuthServer(
            self._folder,
            secret=self._secret,
            deepstream_port=self._deepstream_port,
            env={**env, "TORNADO_DS_PUBLIC_URL": self.url},
        )

    def cli(self, *arguments: str, text: str = "") -> str:
        """Return what a command prints that is run beside the server, over the same data; *text* is its input."""
        return run_command(*arguments, env=self.settings, text=text)

    def send_login(self, username: str, password: str) -> Response:
        """Return the answer to a login."""
        return fetch(
            f"{self.url}/handle-login",
            method="POST",
            headers={"Accept": "application/json", "Origin": self.settings["TORNADO_DS_PUBLIC_URL"]},
            body={"username": username, "password": password},
        )

    def log_in(self, username: str, password: str) -> str:
        """Return the cookie of a new session, ready for a Cookie header."""
        response = self.send_login(username, password)
        assert response.status == 200, response
        return session_cookie(response)

    def log_out(self, cookie: str) -> None:
        """End the session of *cookie*."""
        response = fetch(
            f"{self.url}/logout",
            method="POST",
            headers={"Accept": "application/json", "Origin": self.settings["TORNADO_DS_PUBLIC_URL"], "Cookie": cookie},
        )
        assert response.status == 204, response


class Deepstream(Server):
    """A real deepstream server with our config; *webhook* and *feed* stand in for the addresses in it."""

    def __init__(
        self,
        folder: Path,
        *,
        secret: str,
        internal: str,
        port: int | None = None,
        webhook: str | None = None,
        feed: str | None = None,
    ) -> None:
        self.port = port or free_port()
        self.url = f"ws://localhost:{self.port}/deepstream"
        self.http_url = f"http://127.0.0.1:{self.port}"
        addresses = {_WEBHOOK: webhook, _FEED: feed}
        others = {before: after for before, after in addresses.items() if after is not None}
        config = _copy_config(folder, others) if others else DEEPSTREAM_CONFIG / "config.yml"
        super().__init__(
            [NODE, str(DEEPSTREAM), "start", "-c", str(config), "--port", str(self.port)],
            env={"TORNADO_DS_WEBHOOK__SECRET": secret, "TORNADO_DS_INTERNAL_LISTEN": internal},
            log=folder / "deepstream.log",
            ready=f"{self.http_url}/health-check",
            stop_signal=signal.SIGINT,
        )


def _copy_config(folder: Path, changes: Mapping[str, str]) -> Path:
    """Return a copy of our config with some of its text changed."""
    copy = shutil.copytree(DEEPSTREAM_CONFIG, folder / "config")
    config = copy / "config.yml"
    text = config.read_text(encoding="utf-8")
    for before, after in changes.items():
        assert text.count(before) == 1
        text = text.replace(before, after)
    config.write_text(text, encoding="utf-8")
    return config


def _clean_environment() -> dict[str, str]:
    """Return the environment without settings of whoever runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TORNADO_DS_")}
