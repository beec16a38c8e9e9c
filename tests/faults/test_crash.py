"""kill -9 under a real server, and a real program that seeds, while busy; the long version is `make torture`."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path
from threading import Event

import pytest

from benchmarks.traffic import Place, settings_of
from tests.forgeries import sid_of
from tests.live.servers import AuthServer, wait_for
from tests.postgresql import run_now
from tornado_ds.app import open_services, prepare_database
from tornado_ds.settings import PasswordSettings, Settings
from torture.scenarios.crash import Acknowledged, is_intact, lost_of, start_writer

PASSWORD = "correct horse battery staple"
PEOPLE = ["alice", "bob", "carol"]
KILLS = 3


@pytest.mark.untraced
def test_no_acknowledged_login_and_no_end_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    """What a browser was told is in the database, whatever the server was doing at that moment."""
    server = AuthServer(tmp_path, secret="0f1e2d3c4b5a69788796a5b4c3d2e1f0", deepstream_port=6020)
    sessions: set[str] = set()
    ends: set[str] = set()
    is_busy = Event()

    def browse(name: str) -> None:
        # Until nobody answers any more.
        with suppress(OSError, HTTPException):
            while True:
                cookie = server.log_in(name, PASSWORD)
                sid = sid_of(cookie.partition("=")[2])
                sessions.add(sid)
                server.log_out(cookie)
                ends.add(sid)
                if len(ends) > 10:
                    is_busy.set()

    run_now(lambda: _add_people(tmp_path / "data"))
    server.start()
    with ThreadPoolExecutor(len(PEOPLE)) as pool:
        browsers = [pool.submit(browse, name) for name in PEOPLE]
        assert is_busy.wait(20)
        server.kill()
    for browser in browsers:
        browser.result()

    with closing(sqlite3.connect(tmp_path / "data" / "tornado_ds.sqlite3")) as database:
        found = dict(database.execute("SELECT sid, ended_at FROM sessions").fetchall())
    assert sessions - set(found) == set()
    assert [sid for sid in ends if found[sid] is None] == []


@pytest.mark.untraced
def test_no_acknowledged_user_is_lost_when_seeding_is_killed(place: Place) -> None:
    """Who was reported as added or seeded is there after each of several kills, and the file is whole."""
    settings = settings_of(place.folder)
    run_now(lambda: prepare_database(settings))
    output, acknowledged = place.folder / "writer.out", Acknowledged()

    for number in range(KILLS):
        writer = start_writer(place, f"added-{number}", output)
        try:
            # Each time a little further into what it does over and over.
            wait_for(partial(_has_written, output, 500 + 77 * number))
        finally:
            writer.kill()
            writer.wait()
        acknowledged.take(output.read_text(encoding="utf-8"))

    assert is_intact(settings.sqlite_path)
    assert [] == [name for names in lost_of(settings.sqlite_path, acknowledged).values() for name in names]
    assert len(acknowledged.users) > 10 * KILLS


def _has_written(output: Path, least: int) -> bool:
    return output.stat().st_size > least


async def _add_people(folder: Path) -> None:
    settings = Settings(data_dir=folder, passwords=PasswordSettings(bcrypt_cost=4, allow_weak_cost=True))
    await prepare_database(settings)
    async with open_services(settings) as services:
        for name in PEOPLE:
            await services.accounts.add(name, PASSWORD)
