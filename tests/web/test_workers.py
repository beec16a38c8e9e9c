"""Several workers on one port: restarted, drained, and of one mind."""

import asyncio
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path

import orjson
import pytest
from structlog.testing import capture_logs

from tests.commands import run_command
from tests.live.servers import fetch, free_port, wait_for
from tests.web.test_health import LOCAL, until_ready
from tornado_ds.key_file import add_key
from tornado_ds.server import serve
from tornado_ds.settings import Settings
from tornado_ds.sockets import Sockets, listen_on
from tornado_ds.workers import Workers

WORKERS = 2


class Supervised:
    """A server of two workers, as it is started by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.public, self.internal = free_port(), free_port()
        self._log = (folder / "log").open("wb")
        self._settings = {
            "TORNADO_DS_WORKERS": str(WORKERS),
            "TORNADO_DS_DATA_DIR": str(folder / "var"),
            "TORNADO_DS_LISTEN": f"127.0.0.1:{self.public}",
            "TORNADO_DS_INTERNAL_LISTEN": f"127.0.0.1:{self.internal}",
            "TORNADO_DS_LOG_FORMAT": "json",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tornado_ds"],
            env=os.environ | self._settings | {"TMPDIR": str(folder)},
            cwd=folder,
            stderr=self._log,
        )

    def command(self, *arguments: str, password: str = "") -> str:
        """Return what a command on the same data prints."""
        return run_command(*arguments, env=self._settings, text=password)

    def events(self, name: str) -> list[dict[str, object]]:
        """Return the log lines that say *name*."""
        # The last line, if it fails, is for people.
        lines = [line for line in (self.folder / "log").read_bytes().splitlines() if line.startswith(b"{")]
        return [event for line in lines if (event := orjson.loads(line))["event"] == name]

    def workers(self) -> set[int]:
        """Return the process ids of the workers that live."""
        started = {int(str(event["pid"])) for event in self.events("worker started")}
        return started - {int(str(event["pid"])) for event in self.events("worker ended")}

    def check(self, token: str) -> tuple[int, bytes]:
        """Return what one of the workers says of *token*, over a new connection."""
        secret = (self.folder / "var" / "webhook.secret").read_text().strip()
        authorization = b64encode(f"deepstream:{secret}".encode()).decode()
        return self._ask(
            "POST",
            "/check-token",
            body=orjson.dumps({"connectionData": {}, "authData": {"token": token}}),
            headers={"Authorization": f"Basic {authorization}", "Content-Type": "application/json"},
        )

    def figure(self, name: str) -> float:
        """Return one of the figures."""
        _, body = self._ask("GET", "/metrics")
        match = re.search(rf"^{re.escape(name)} (\S+)$", body.decode(), re.MULTILINE)
        return float(match[1]) if match else 0.0

    def close(self) -> None:
        """Leave nothing running."""
        self.process.kill()
        self.process.wait()
        for pid in self.workers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._log.close()

    def _ask(
        self, method: str, path: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        with closing(HTTPConnection("127.0.0.1", self.internal, timeout=10)) as connection:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Supervised]:
    """A server of two workers that are ready."""
    server = Supervised(tmp_path)
    try:
        wait_for(lambda: len(server.events("ready")) == WORKERS)
        yield server
    finally:
        server.close()


@pytest.fixture
def token(server: Supervised) -> str:
    """A live token of alice."""
    server.command("users", "add", "alice", "--password-stdin", password="a long enough passphrase\n")
    return server.command("sessions", "open", "alice", "--lifetime", "1h").strip()


def test_end_is_known_to_all_workers_when_it_was_typed_elsewhere(server: Supervised, token: str) -> None:
    """Whichever worker is asked, a session that a command has ended is over for it."""
    before = {server.check(token)[0] for _ in range(20)}

    server.command("sessions", "end", "--everybody")

    assert before == {200}
    wait_for(lambda: server.check(token) == (403, b"session_ended"))
    # Each of them has read the feed by the next turn of the slower one.
    wait_for(lambda: {server.check(token)[0] for _ in range(20)} == {403})


def test_figures_are_those_of_all_workers(server: Supervised, token: str) -> None:
    """The sum of checks is right whichever worker is asked, and stays so when one dies; the dead are not counted."""
    for _ in range(50):
        server.check(token)

    # What a worker has counted is public a moment later.
    wait_for(lambda: server.figure('tornado_ds_checks_total{code="ok"}') == 50.0)
    asked = {server.figure('tornado_ds_checks_total{code="ok"}') for _ in range(10)}
    os.kill(min(server.workers()), signal.SIGKILL)
    wait_for(lambda: len(server.events("ready")) == WORKERS + 1)
    # So is the new worker itself.
    wait_for(lambda: server.figure("tornado_ds_workers") == WORKERS)
    after = server.figure('tornado_ds_checks_total{code="ok"}')

    assert asked == {50.0}
    assert after == 50.0


def test_worker_is_started_again_when_it_dies(server: Supervised, token: str) -> None:
    """The parent notices, says so, and starts another; connections are answered all the time."""
    victim = min(server.workers())

    os.kill(victim, signal.SIGKILL)
    statuses = {server.check(token)[0] for _ in range(20)}
    wait_for(lambda: len(server.events("ready")) == WORKERS + 1)

    assert statuses == {200}
    assert [victim] == [event["pid"] for event in server.events("worker ended")]
    assert len(server.workers()) == WORKERS


def test_worker_leaves_no_figures_when_it_cannot_start(server: Supervised) -> None:
    """However often one is tried again while the database is away, the figures stay as few as the workers."""
    victim, other = sorted(server.workers())
    database = server.folder / "var" / "tornado_ds.sqlite3"
    database.rename(database.with_suffix(".away"))

    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(server.events("worker failed")) > 1)

    files = server.folder.glob("tornado_ds-metrics-*/*.db")
    assert {victim, other} == {int(file.stem.rpartition("_")[2]) for file in files}


def test_others_go_on_when_one_worker_is_told_to_stop(server: Supervised, token: str) -> None:
    """A worker that goes in good order leaves the sockets to the others, and is replaced."""
    os.kill(min(server.workers()), signal.SIGTERM)

    wait_for(lambda: len(server.events("ready")) == WORKERS + 1)
    statuses = {server.check(token)[0] for _ in range(20)}

    assert statuses == {200}
    assert fetch(f"http://127.0.0.1:{server.public}/login").status == 200


def test_all_end_well_when_the_parent_is_told_to_stop(server: Supervised) -> None:
    """SIGTERM to the parent stops every worker, and the exit code is 0."""
    workers = server.workers()

    server.process.send_signal(signal.SIGTERM)

    assert server.process.wait(20) == 0
    assert len(server.events("stopping")) == WORKERS
    assert not [pid for pid in workers if _lives(pid)]


def test_workers_end_when_the_parent_is_killed(server: Supervised) -> None:
    """No worker goes on without anybody who would start it again."""
    workers = server.workers()

    server.process.kill()
    server.process.wait()

    wait_for(lambda: not [pid for pid in workers if _lives(pid)])


def test_new_key_signs_when_the_parent_gets_sighup(server: Supervised, token: str) -> None:
    """SIGHUP makes all workers read the keys again; tokens of the older key stay good, those of the new one are."""
    key = add_key(server.folder / "var" / "keys.json", "HS256", now=int(time.time()), delay=0)

    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(server.events("reloading")) == len(server.events("keys reloaded")) == WORKERS)
    newer = server.command("sessions", "open", "alice", "--lifetime", "1h").strip()

    assert newer.startswith(key.header)
    assert {200} == {server.check(each)[0] for each in (token, newer) for _ in range(10)}


def test_workers_start_when_the_parent_gets_sighup_meanwhile(tmp_path: Path) -> None:
    """A reload that is asked for in the middle of the start ends nobody."""
    server = Supervised(tmp_path)

    try:
        wait_for(lambda: len(server.events("worker started")) > 0)
        while len(server.events("ready")) < WORKERS and server.process.poll() is None:
            server.process.send_signal(signal.SIGHUP)
        ended = server.events("worker ended")
    finally:
        server.close()

    assert ended == []


@pytest.mark.gen_test
async def test_reload_is_not_lost_when_sighup_comes_during_the_start(settings: Settings) -> None:
    """What was read before it is read again as soon as all is there."""
    sockets = Sockets(public=listen_on(LOCAL, key="listen"), internal=listen_on(LOCAL, key="internal_listen"))
    # Where nobody takes it, it is lost, and not the end of the tests.
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with capture_logs() as logs:
        serving = asyncio.create_task(serve(settings, sockets))
        await asyncio.sleep(0)
        signal.raise_signal(signal.SIGHUP)
        await until_ready(sockets.internal[0].getsockname()[1])
        signal.raise_signal(signal.SIGTERM)
        await serving
    signal.signal(signal.SIGHUP, before)

    events = [line["event"] for line in logs if line["event"] in ("reloading", "ready")]
    assert events == ["reloading", "ready"]


def test_start_is_given_up_when_workers_cannot_start(server: Supervised) -> None:
    """Workers that end right after their start, again and again, end the parent with one line."""
    with closing(sqlite3.connect(server.folder / "var" / "tornado_ds.sqlite3")) as database:
        database.execute("DROP TABLE session_events")
        database.commit()

    for pid in server.workers():
        os.kill(pid, signal.SIGKILL)

    assert server.process.wait(60) == 1
    assert server.events("worker failed")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]


def test_worker_says_why_when_it_fails(capfd: pytest.CaptureFixture[str]) -> None:
    """A slip of ours is in the log with its traceback, and the parent hears of the end."""
    buried = []

    def work(orphaned: int) -> None:
        raise ValueError(f"descriptor {orphaned} is of no use")

    def bury(pid: int) -> None:
        buried.append(pid)
        # Enough of it: another one would fail as well.
        signal.raise_signal(signal.SIGTERM)

    Workers(1, work, buried=bury, stopping=lambda: None).run()

    signal.alarm(0)
    output = capfd.readouterr().out
    assert 1 == len(buried)
    assert "worker failed" in output
    assert re.search(r"ValueError: descriptor \d+ is of no use", output)
