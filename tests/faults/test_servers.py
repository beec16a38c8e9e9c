"""Whole servers whose database fails under checks, pages and logins; the long version is `make torture`."""

import asyncio
from collections.abc import Callable
from functools import partial

import pytest
from pydantic import SecretStr

from benchmarks.programs import OurServer
from benchmarks.traffic import Place, settings_of
from tests.postgresql import PostgreSQL
from torture.cast import Cast, make_cast
from torture.faults import Fault, blocking, endure_briefly
from torture.probe import Probe, questions
from torture.scenarios.postgresql import killed, locked, read_only
from torture.scenarios.sqlite import File

# Each login comes from an address of its own.
ENV = {"TORNADO_DS_TRUSTED_PROXIES": "127.0.0.1"}

pytestmark = pytest.mark.untraced


@pytest.mark.parametrize("begin", [File.fail_writes, File.write_protect])
def test_everybody_gets_the_right_answer_or_503_when_sqlite_cannot_be_written(
    place: Place, cast: Cast, begin: Callable[[File], None]
) -> None:
    """Whether the disk fails or the file is read-only, nobody is blamed, and no login is acknowledged and lost."""
    with OurServer(place, env=ENV) as server:
        file = File(settings_of(place.folder).sqlite_path, server.pid)
        fault = Fault(name="no writing", begin=blocking(partial(begin, file)), end=blocking(file.end))
        probe = Probe(questions(server, place, cast))
        endured = asyncio.run(endure_briefly(probe, fault))
        sessions = file.ask("SELECT count(*) FROM sessions WHERE username LIKE 'person-%'")

    assert [] == [(reply.question.name, reply.status) for reply in endured.replies if reply.is_wrong]
    assert endured.troubled > 0
    assert sessions >= sum(reply.question.name == "login" and reply.status == 200 for reply in probe.replies) > 0


@pytest.mark.parametrize(
    "make_fault",
    [
        pytest.param(killed, id="killed"),
        pytest.param(lambda postgresql: locked(postgresql, postgresql.database), id="locked"),
        pytest.param(read_only, id="read-only"),
    ],
)
def test_everybody_gets_the_right_answer_or_503_when_postgresql_fails(
    place: Place, postgresql: PostgreSQL, postgresql_url: str, make_fault: Callable[[PostgreSQL], Fault]
) -> None:
    """Whatever becomes of PostgreSQL, nobody is let in or blamed for it, and all is well again without a restart."""
    settings = settings_of(place.folder).model_copy(update={"database_url": SecretStr(postgresql_url)})
    cast = make_cast(settings)

    with OurServer(place, env={**ENV, "TORNADO_DS_DATABASE_URL": postgresql_url}) as server:
        probe = Probe(questions(server, place, cast))
        endured = asyncio.run(endure_briefly(probe, make_fault(postgresql)))

    assert [] == [(reply.question.name, reply.status) for reply in endured.replies if reply.is_wrong]
    assert endured.troubled > 0
