"""`/healthz` and `/readyz` of the internal listener, as monitoring asks for them."""

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from tests.fakes import ManualClock
from tests.web.wire import Answer, Wire, get
from tornado_ds.app import open_services
from tornado_ds.handlers.routes import make_internal_app
from tornado_ds.listeners import InternalListener
from tornado_ds.readiness import KEEP_SECONDS
from tornado_ds.server import serve
from tornado_ds.services import Services
from tornado_ds.settings import Address, Settings
from tornado_ds.sockets import Sockets, listen_on

LOCAL = Address("127.0.0.1", 0)

pytestmark = pytest.mark.gen_test


@asynccontextmanager
async def listening(services: Services) -> AsyncIterator[int]:
    """The port of the internal listener over *services*."""
    listener = InternalListener(make_internal_app(services), listen_on(LOCAL, key="internal_listen"))
    await listener.start()
    try:
        yield listener.port
    finally:
        await listener.drain()


async def ask(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON of an answer."""
    async with Wire(port) as wire:
        wire.send(get(path))
        answer: Answer = await wire.answer()
    return answer.status, orjson.loads(answer.body)


async def test_server_is_ready_when_all_is_well(services: Services) -> None:
    """Nothing is named, and the age of the feed is told in seconds."""
    async with listening(services) as port:
        answer = await ask(port, "/readyz")

    assert answer == (200, {"ready": True, "not_ready": {}, "feed_age_seconds": 0.0})


async def test_server_is_alive_but_not_ready_when_the_database_is_away(settings: Settings) -> None:
    """Restarting it would not help, sending people to it neither."""
    away = settings.model_copy(update={"database_url": SecretStr("postgresql://u:canary@127.0.0.1:1/x")})
    async with open_services(away) as services, listening(services) as port:
        alive = await ask(port, "/healthz")
        status, body = await ask(port, "/readyz")

    assert alive == (200, {"status": "alive"})
    assert (status, body["ready"], body["feed_age_seconds"]) == (503, False, None)
    assert sorted(body["not_ready"]) == ["database", "feed"]
    assert "canary" not in repr(body)


async def test_server_is_not_ready_when_the_tables_are_of_another_version(
    services: Services, sqlite_file: Path, clock: ManualClock
) -> None:
    """Somebody has upgraded the database for a newer version, while this one ran."""
    async with listening(services) as port:
        before = await ask(port, "/readyz")
        with closing(sqlite3.connect(sqlite_file)) as database:
            database.execute("UPDATE alembic_version SET version_num = '9999'")
            database.commit()
        clock.advance(KEEP_SECONDS)
        status, body = await ask(port, "/readyz")

    assert before[0] == 200
    assert (status, list(body["not_ready"])) == (503, ["migrations"])


async def test_server_says_that_it_drains_while_somebody_waits_for_an_answer(settings: Settings) -> None:
    """After SIGTERM it takes no new visitors, finishes with those it has, and tells who asks."""
    sockets = Sockets(public=listen_on(LOCAL, key="listen"), internal=listen_on(LOCAL, key="internal_listen"))
    port, internal_port = (listening[0].getsockname()[1] for listening in (sockets.public, sockets.internal))
    serving = asyncio.create_task(serve(settings, sockets))
    await until_ready(internal_port)

    async with Wire(port) as visitor:
        visitor.send(b"POST /logout HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        interim = await visitor.answer()
        os.kill(os.getpid(), signal.SIGTERM)
        status, body = await while_ready(internal_port)
        visitor.send(b"a=bc")
        answer = await visitor.answer()
    await serving

    assert (interim.status, answer.status) == (100, 303)
    assert (status, body["not_ready"]) == (503, {"draining": "the server is stopping"})
    with pytest.raises(ConnectionRefusedError):
        await ask(internal_port, "/readyz")


async def test_worker_stops_and_looks_no_longer_for_its_parent_when_that_is_gone(settings: Settings) -> None:
    """The pipe of the parent stays readable, and would keep the worker busy while answers are on their way."""
    sockets = Sockets(public=listen_on(LOCAL, key="listen"), internal=listen_on(LOCAL, key="internal_listen"))
    port, internal_port = (listening[0].getsockname()[1] for listening in (sockets.public, sockets.internal))
    orphaned, parent_lives = os.pipe()
    serving = asyncio.create_task(serve(settings, sockets, orphaned=orphaned))
    await until_ready(internal_port)

    async with Wire(port) as visitor:
        visitor.send(b"POST /logout HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        await visitor.answer()
        os.close(parent_lives)
        await while_ready(internal_port)
        is_read = asyncio.get_running_loop().remove_reader(orphaned)
        visitor.send(b"a=bc")
        answer = await visitor.answer()
    await serving
    os.close(orphaned)

    assert (is_read, answer.status) == (False, 303)


async def until_ready(port: int) -> None:
    """Return when the server is up."""
    while True:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            if (await ask(port, "/readyz"))[0] == 200:
                return
        await asyncio.sleep(0.01)


async def while_ready(port: int) -> tuple[int, dict[str, Any]]:
    """Return the first answer that says it is not."""
    while (answer := await ask(port, "/readyz"))[0] == 200:
        pass
    return answer
