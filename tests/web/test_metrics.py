"""The figures for Prometheus: what happened is what they say."""

import asyncio
import os
import re
import signal
import sqlite3
import struct
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.web.browser import PASSWORD, Browser
from tests.web.test_framing import PLAIN
from tests.web.test_health import LOCAL, until_ready
from tests.web.wire import Wire, get, post
from tornado_ds.errors import OverloadedError
from tornado_ds.handlers.routes import make_internal_app
from tornado_ds.listeners import InternalListener
from tornado_ds.metrics import MULTIPROCESS_VARIABLE, Metrics
from tornado_ds.server import serve
from tornado_ds.services import Services
from tornado_ds.settings import Settings
from tornado_ds.sockets import Sockets, listen_on
from tornado_ds.users import User

pytestmark = pytest.mark.gen_test(timeout=20)


def figures(text: str | bytes) -> dict[str, float]:
    """Every figure, with its labels as they are written."""
    lines = text.decode() if isinstance(text, bytes) else text
    return {match[1]: float(match[2]) for match in re.finditer(r"^(tornado_ds_\S+) (\S+)$", lines, re.MULTILINE)}


def counted(metrics: Metrics, name: str) -> dict[str, float]:
    """What is counted by the one label of the counter *name*, without the zeros."""
    pattern = re.compile(rf'tornado_ds_{name}_total{{\w+="(\w+)"}}')
    found = ((pattern.fullmatch(key), value) for key, value in figures(metrics.expose()).items())
    return {match[1]: value for match, value in found if match and value}


async def test_logins_are_counted_by_result(browser: Browser, alice: User, services: Services) -> None:
    """Good ones, wrong ones, and those that were turned away."""
    await browser.log_in()
    for _ in range(6):
        await browser.log_in("nobody", "wrong password")

    assert counted(services.metrics, "logins") == {"ok": 1, "invalid_credentials": 5, "throttled": 1}


async def test_login_is_counted_as_unavailable_when_the_database_is_locked(
    browser: Browser, alice: User, services: Services, sqlite_file: Path
) -> None:
    """An outage is no wrong password."""
    with closing(sqlite3.connect(sqlite_file)) as other:
        other.execute("BEGIN IMMEDIATE")
        await browser.log_in()

    assert counted(services.metrics, "logins") == {"unavailable": 1}


async def test_login_is_counted_as_overloaded_when_it_is_turned_away(services: Services) -> None:
    """So many at once that some are not even tried."""
    attempts = (services.accounts.log_in(f"user{number}", PASSWORD) for number in range(200))

    ends = await asyncio.gather(*attempts, return_exceptions=True)

    turned_away = [end for end in ends if isinstance(end, OverloadedError)]
    assert turned_away
    assert counted(services.metrics, "logins")["overloaded"] == len(turned_away)


async def test_login_through_deepstream_is_counted_too(alice: User, services: Services) -> None:
    """However somebody logs in."""
    await services.accounts.log_in("alice", PASSWORD, user_agent="deepstream")

    assert counted(services.metrics, "logins") == {"ok": 1}


async def test_sessions_are_counted_when_they_begin_and_end(browser: Browser, alice: User, services: Services) -> None:
    """By the reason of the end; a second end of the same session is none."""
    await browser.log_in()
    await browser.log_in()
    await browser.submit("/logout", {})
    await browser.submit("/logout", {})
    await services.housekeeping.count()

    assert counted(services.metrics, "sessions_ended") == {"replaced": 1, "logout": 1}
    assert figures(services.metrics.expose())["tornado_ds_sessions_opened_total"] == 2
    assert figures(services.metrics.expose())["tornado_ds_sessions_live"] == 0


async def test_session_is_not_counted_when_it_was_rolled_back(alice: User, services: Services) -> None:
    """What never was is not counted."""

    class ChangedMindError(Exception):
        pass

    with suppress(ChangedMindError):
        async with services.sessions.transaction():
            opened = await services.sessions.open(alice)
            await services.sessions.end(opened.claims.sid, reason="logout")
            raise ChangedMindError

    assert figures(services.metrics.expose())["tornado_ds_sessions_opened_total"] == 0
    assert counted(services.metrics, "sessions_ended") == {}


async def test_hashing_time_is_noted_for_every_password(browser: Browser, alice: User, services: Services) -> None:
    """A name that nobody has takes as long, and is noted like others."""
    await browser.log_in()
    await browser.log_in("nobody")

    assert figures(services.metrics.expose())["tornado_ds_hashing_seconds_count"] == 2


async def test_server_tells_its_figures(settings: Settings) -> None:
    """What no request brings about is noted by the server itself, from its start on."""
    sockets = Sockets(public=listen_on(LOCAL, key="listen"), internal=listen_on(LOCAL, key="internal_listen"))
    port, internal_port = (listening[0].getsockname()[1] for listening in (sockets.public, sockets.internal))
    serving = asyncio.create_task(serve(settings, sockets))
    await until_ready(internal_port)

    async with Wire(port), Wire(port), Wire(internal_port) as wire:
        wire.send(post("/check-token", b"{}", *PLAIN))
        await wire.answer()
        found: dict[str, float] = {}
        while found.get('tornado_ds_connections{listener="public"}') != 2:
            wire.send(get("/metrics"))
            answer = await wire.answer()
            found = figures(answer.body)
    os.kill(os.getpid(), signal.SIGTERM)
    await serving

    assert answer.headers["content-type"] == Metrics.CONTENT_TYPE
    assert found['tornado_ds_checks_total{code="not_logged_in"}'] == 1
    assert found['tornado_ds_connections{listener="internal"}'] == 1
    assert found["tornado_ds_workers"] == 1
    assert found["tornado_ds_feed_followers"] == 0
    assert found["tornado_ds_sessions_live"] == 0
    assert found["tornado_ds_loop_lag_seconds_count"] >= 1
    assert 0 <= found["tornado_ds_feed_age_seconds"] < 60


async def test_check_is_answered_while_figures_are_collected(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many files of workers there are to read, and however slowly that goes."""
    monkeypatch.setenv(MULTIPROCESS_VARIABLE, str(tmp_path))
    listener = InternalListener(make_internal_app(services), listen_on(LOCAL, key="internal_listen"))
    await listener.start()
    file = tmp_path / "counter_1.db"
    os.mkfifo(file)
    order: list[str] = []
    is_checked = threading.Event()

    def fill() -> None:
        # Not only then, so that the test fails, and does not hang, when the server stands still.
        is_checked.wait(5)
        # A file of a worker that has counted nothing says in its first octets where it ends.
        file.write_bytes(struct.pack("ii", 8, 0))

    filling = asyncio.create_task(asyncio.to_thread(fill))
    async with Wire(listener.port) as prometheus, Wire(listener.port) as deepstream:
        deepstream.send(get("/healthz"))
        await deepstream.answer()
        prometheus.send(get("/metrics"))
        scraped = asyncio.create_task(prometheus.answer())
        scraped.add_done_callback(lambda _: order.append("figures"))
        await asyncio.sleep(0)
        deepstream.send(post("/check-token", b"{}", *PLAIN))
        await deepstream.answer()
        order.append("check")
        is_checked.set()
        answer = await scraped
    await filling
    await listener.drain()

    assert order == ["check", "figures"]
    assert answer.status == 200


def test_figures_are_there_before_anything_happens() -> None:
    """Prometheus sees no rise in a figure that is not there before."""
    names = figures(Metrics().expose())

    assert {name: 0.0 for name in names if "_total" in name} == {
        'tornado_ds_checks_total{code="ok"}': 0.0,
        'tornado_ds_checks_total{code="unavailable"}': 0.0,
        **{
            f'tornado_ds_logins_total{{result="{result}"}}': 0.0
            for result in ("ok", "invalid_credentials", "throttled", "overloaded", "unavailable", "failed")
        },
        "tornado_ds_sessions_opened_total": 0.0,
    }
    assert not [name for name in names if "_created" in name]
