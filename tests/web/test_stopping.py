"""A server that is told to stop under load loses no request."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.servers import AuthServer, free_port
from tests.load import Load
from tests.web.certificates import trusting, write_certificate
from tests.web.test_session_events import until
from tests.web.wire import Wire, get
from tornado_ds.handlers.base import BaseHandler
from tornado_ds.handlers.routes import WebApplication, make_app, make_internal_app
from tornado_ds.listeners import InternalListener, Listener, PublicListener
from tornado_ds.services import Services
from tornado_ds.settings import Address, UnixAddress
from tornado_ds.sockets import listen_on

SECRET = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
LARGE = 8 * 1024 * 1024


Place = tuple[int | Path, dict[str, str], ssl.SSLContext | None]


def with_tls(folder: Path) -> Place:
    """A port, the settings of a server that speaks TLS there, and what clients need."""
    port, tls = free_port(), write_certificate(folder)
    assert tls.certificate is not None
    env = {
        "TORNADO_DS_LISTEN": f"127.0.0.1:{port}",
        "TORNADO_DS_PUBLIC_URL": "https://localhost",
        "TORNADO_DS_TLS__CERTIFICATE": str(tls.certificate),
        "TORNADO_DS_TLS__KEY": str(tls.key),
    }
    return port, env, trusting(tls.certificate)


def with_workers(folder: Path) -> Place:
    """A unix socket, and the settings of a server with two workers there."""
    path = folder / "public.sock"
    return path, {"TORNADO_DS_LISTEN": f"unix:{path}", "TORNADO_DS_WORKERS": "2"}, None


class LargeHandler(BaseHandler):
    """Answers with more than fits into the buffers of a connection."""

    def get(self) -> None:
        self.write(b"x" * LARGE)


class SlowHandler(BaseHandler):
    """Answers once *may_answer* is set."""

    def initialize(self, services: Services, may_answer: asyncio.Event) -> None:  # type: ignore[override]
        super().initialize(services)
        self._may_answer = may_answer

    async def get(self) -> None:
        await self._may_answer.wait()


@pytest.mark.untraced
@pytest.mark.parametrize("place", [with_tls, with_workers])
def test_no_request_is_lost_when_the_server_stops_under_load(tmp_path: Path, place: Callable[[Path], Place]) -> None:
    """What was sent is answered, whether on a new connection or on one that was kept."""
    address, env, client = place(tmp_path)
    server = AuthServer(tmp_path, secret=SECRET, deepstream_port=1, env=env)

    async def stop_under_load() -> Load:
        async with Load(address, tls=client) as load:
            await load.until_answered(200)
            await asyncio.to_thread(server.stop)
        return load

    with server:
        load = asyncio.run(stop_under_load())

    assert load.lost == []


@pytest.mark.gen_test
async def test_listener_serves_who_has_connected_and_takes_leave_when_it_stops(services: Services) -> None:
    """Connections that wait, are idle or have half a request are answered once more, large answers read to the end."""
    app = make_app(services, [("/large", LargeHandler)])
    listener = PublicListener(app, listen_on(Address("127.0.0.1", 0), key="listen"))
    await listener.start()
    async with Wire(listener.port) as idle, Wire(listener.port) as half, Wire(listener.port) as slow:
        idle.send(get("/login"))
        kept = await idle.answer()
        half.send(get("/login")[:20])
        slow.send(get("/large"))
        await slow.reader.readuntil(b"\r\n\r\n")
        draining = asyncio.create_task(listener.drain())
        await asyncio.sleep(0)
        idle.send(get("/login"))
        half.send(get("/login")[20:])
        answers = [await idle.answer(), await half.answer()]
        body = await slow.reader.readexactly(LARGE)
        rests = [await wire.rest() for wire in (idle, half, slow)]
    await draining

    assert "connection" not in kept.headers
    assert [(answer.status, answer.headers["connection"]) for answer in answers] == [(200, "close")] * 2
    assert len(body) == LARGE
    assert rests == [b"", b"", b""]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("kind", "make", "path"),
    [
        pytest.param(PublicListener, make_app, "/login", id="public"),
        pytest.param(InternalListener, make_internal_app, "/healthz", id="internal"),
    ],
)
async def test_client_is_served_when_it_was_connecting_as_the_server_began_to_stop(
    tmp_path: Path,
    services: Services,
    kind: type[Listener],
    make: Callable[[Services], WebApplication],
    path: str,
) -> None:
    """A handshake that has begun comes to its end, and what is asked then is answered."""
    # Where it is moved to, the socket can still be connected to, as over a slow line.
    before, after = tmp_path / "before.sock", tmp_path / "after.sock"
    listener = kind(make(services), listen_on(UnixAddress(before), key="listen"))
    await listener.start()
    before.rename(after)

    draining = asyncio.create_task(listener.drain())
    for _ in range(5):
        await asyncio.sleep(0)
    async with Wire(after) as wire:
        wire.send(get(path))
        answer = await wire.answer()
    await draining

    assert (answer.status, answer.headers["connection"]) == (200, "close")


@pytest.mark.gen_test
async def test_client_is_served_once_more_when_its_answer_took_longer_than_the_last_call(services: Services) -> None:
    """Whoever asked before the stop was promised that the connection stays, and asks on it again."""
    may_answer = asyncio.Event()
    app = make_app(services, [("/slow", SlowHandler, {"may_answer": may_answer})])
    [sock] = listen_on(Address("127.0.0.1", 0), key="listen")
    listener = PublicListener(app, [sock])
    await listener.start()
    async with Wire(listener.port) as wire:
        wire.send(get("/slow"))
        await until(lambda: len(app.in_flight) == 1)
        draining = asyncio.create_task(listener.drain())
        await until(lambda: sock.fileno() == -1)
        may_answer.set()
        answers = [await wire.answer()]
        wire.send(get("/login"))
        answers.append(await wire.answer())
        rest = await wire.rest()
    await draining

    assert [(answer.status, answer.headers.get("connection")) for answer in answers] == [(200, None), (200, "close")]
    assert rest == b""
