"""Fixtures for all tests. An asynchronous test is marked `gen_test`, and pytest-tornado runs it in `io_loop`."""

import asyncio
import os
import shutil
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis
from tornado.platform.asyncio import AsyncIOLoop

from tests import canaries
from tests.commands import logging_as_before
from tests.fakes import ManualClock
from tests.postgresql import PostgreSQL, run_server, upgrade_now
from tornado_ds.settings import PasswordSettings, Settings

# Of `make test`, and of `make fuzz`. An example may take its time on a busy machine.
hypothesis.register_profile("tests", deadline=None)
hypothesis.register_profile("fuzz", deadline=None, max_examples=int(os.environ.get("EXAMPLES", "20000")))
hypothesis.load_profile("tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the live tests in one process: they share one deepstream and one browser, and mostly wait for them."""
    for item in items:
        if item.nodeid.startswith("tests/live/"):
            item.add_marker(pytest.mark.xdist_group("live"))
            item.add_marker(pytest.mark.untraced)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test whose output gives a secret away fails, whatever it was about."""
    report = yield
    # By the end of a test everything is there that it did not read, and so look at, itself.
    found = [leak for _, text in report.sections for leak in canaries.leaks(text)] if report.when == "teardown" else []
    if found:
        report.outcome = "failed"
        report.longrepr = "\n".join(["the output gives away:", *found])
    return report


@pytest.fixture(scope="session", autouse=True)
def _no_server_wrote_secrets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The logs of all servers that were started for tests are looked through once all are over."""
    yield

    # deepstream's own log is not ours: it shows the address of the webhook, password included.
    logs = [path for path in tmp_path_factory.getbasetemp().rglob("*log") if path.name != "deepstream.log"]
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in logs if path.is_file()}
    assert {} == {path: found for path, text in texts.items() if (found := canaries.leaks(text))}


@pytest.fixture
def io_loop() -> Iterator[AsyncIOLoop]:
    """The event loop of one test; pytest-tornado's own makes itself current in a way that Tornado is giving up."""
    io_loop = AsyncIOLoop(make_current=False)
    asyncio.set_event_loop(io_loop.asyncio_loop)

    yield io_loop

    # A connection to SQLite that failed says so to the loop from its thread, a moment later.
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            thread.join(timeout=5)
    asyncio.set_event_loop(None)
    io_loop.close(all_fds=True)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Whatever a test, or a command that it runs, does to the log, the next one finds it as it was."""
    with logging_as_before():
        yield


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still until it is advanced."""
    return ManualClock()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The defaults, with cheap passwords and everything in a folder of the test."""
    return Settings(data_dir=tmp_path / "var", passwords=PasswordSettings(bcrypt_cost=4, allow_weak_cost=True))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server; most tests want `postgresql_url`."""
    with run_server() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql: PostgreSQL) -> Iterator[str]:
    """The URL of a PostgreSQL database with our tables and nothing in them."""
    yield postgresql.url(postgresql.database)
    postgresql.clean()


@pytest.fixture
def empty_postgresql_url(postgresql: PostgreSQL) -> Iterator[str]:
    """The URL of a PostgreSQL database without tables."""
    name = postgresql.create()
    yield postgresql.url(name)
    postgresql.drop(name)


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sqlite") / "template.sqlite3"
    upgrade_now(f"sqlite:///{file}")
    return file


@pytest.fixture
def sqlite_file(_sqlite_template: Path, tmp_path: Path) -> Path:
    """An SQLite database with our tables and nothing in them."""
    return Path(shutil.copy(_sqlite_template, tmp_path / "tornado_ds.sqlite3"))


@pytest.fixture
def sqlite_url(sqlite_file: Path) -> str:
    """The URL of `sqlite_file`."""
    return f"sqlite:///{sqlite_file}"
