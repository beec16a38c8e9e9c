"""More clients than there is room for: the server stays, and says so in few words."""

import asyncio
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import uvloop
from structlog.testing import capture_logs

from tests.live.servers import AuthServer, fetch, wait_for
from tests.live.servers import Server as Program
from tests.web.test_session_events import until
from tests.web.test_stopping import LargeHandler
from tests.web.wire import Wire, get, post
from tornado_ds.app import open_services
from tornado_ds.handlers.base import BaseHandler
from tornado_ds.handlers.routes import DRAIN_BYTES, make_app, make_internal_app
from tornado_ds.limits import Limits, affordable_connections
from tornado_ds.listeners import InternalListener, Listener, PublicListener
from tornado_ds.llhttp.server import Server
from tornado_ds.services import Services
from tornado_ds.settings import Address, Settings
from tornado_ds.sockets import listen_on

SECRET = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
DESCRIPTORS = 160
PATHS = ("/login", "/readyz")


@pytest.mark.gen_test
async def test_clients_beyond_the_limit_are_hung_up_on_and_served_when_there_is_room(services: Services) -> None:
    """Each of them hears at once that there is no room; all together are one line in the log."""
    listener = PublicListener(
        make_app(services), listen_on(Address("127.0.0.1", 0), key="listen"), limits=Limits(connections=3)
    )
    await listener.start()
    with capture_logs() as logs:
        async with AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(Wire(listener.port))
            await until(lambda: listener.connections == 3)
            beyond = [await stack.enter_async_context(Wire(listener.port)) for _ in range(5)]
            rests = [await wire.rest() for wire in beyond]
            await until(lambda: len(logs) > 0)
        await until(lambda: listener.connections == 0)
        async with Wire(listener.port) as wire:
            wire.send(get("/login"))
            answer = await wire.answer()
    await listener.drain()

    assert rests == [b""] * 5
    assert answer.status == 200
    assert [line["turned_away"] for line in logs if line["event"] == "too many connections"] == [5]


@pytest.mark.gen_test
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_client_is_hung_up_on_when_it_does_not_read(services: Services, host: str) -> None:
    """A connection whose answer nobody takes makes room for others, in the end."""
    app = make_app(services, [("/large", LargeHandler)])
    listener = PublicListener(app, listen_on(Address(host, 0), key="listen"), limits=Limits(write=0.3))
    await listener.start()
    _, writer = await asyncio.open_connection(host, listener.port)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(get("/large"))
    await until(lambda: listener.connections == 1)

    await until(lambda: listener.connections == 0)

    writer.transport.abort()
    await listener.drain()


class SizeHandler(BaseHandler):
    """Answers with the size of the body."""

    def post(self) -> None:
        self.write_json({"size": len(self.request.body)})


@pytest.mark.gen_test
async def test_large_body_is_taken_when_the_application_allows_it(services: Services) -> None:
    """A program that takes uploads says how large they may be, and is not held to what is read in vain."""
    app = make_app(services, [("/size", SizeHandler)], max_body_bytes=2 * DRAIN_BYTES)
    listener = PublicListener(app, listen_on(Address("127.0.0.1", 0), key="listen"))
    await listener.start()
    async with Wire(listener.port) as wire:
        wire.send(post("/size", b"x" * 2 * DRAIN_BYTES))
        answer = await wire.answer()
    await listener.drain()

    assert (answer.status, answer.body) == (200, b'{"size":%d}' % (2 * DRAIN_BYTES))


def public(services: Services) -> Listener:
    """The listener for people, on a free port."""
    return PublicListener(make_app(services), listen_on(Address("127.0.0.1", 0), key="listen"))


def internal(services: Services) -> Listener:
    """The listener for deepstream, on a free port."""
    return InternalListener(make_internal_app(services), listen_on(Address("127.0.0.1", 0), key="internal_listen"))


@pytest.mark.parametrize(
    ("make", "path"), [pytest.param(public, "/login", id="public"), pytest.param(internal, "/healthz", id="internal")]
)
def test_listener_serves_again_when_there_were_no_descriptors(
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[Services], Listener],
    path: str,
) -> None:
    """One line says so, without a traceback, and whoever comes when there are some again is served."""

    async def run_out() -> int:
        async with asyncio.timeout(10), open_services(settings) as services:
            listener = make(services)
            await listener.start()
            with socket.socket() as early:
                early.setblocking(False)
                with no_descriptors():
                    early.connect_ex(("127.0.0.1", listener.port))
                    await until(lambda: bool(logs))
                async with Wire(listener.port) as wire:
                    wire.send(get(path))
                    answer = await wire.answer()
            await listener.drain()
        return answer.status

    with capture_logs() as logs:
        status = uvloop.run(run_out())

    assert status == 200
    assert [line["event"] for line in logs if line["event"] != "request"] == ["connections cannot be accepted"]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("make", [public, internal])
def test_listener_accepts_everybody_at_once_when_many_have_connected(
    settings: Settings, make: Callable[[Services], Listener]
) -> None:
    """Nobody waits for their turn until others have asked again and again, as after a restart of deepstream."""

    async def connect() -> int:
        async with open_services(settings) as services:
            listener = make(services)
            await listener.start()
            with ExitStack() as clients:
                for _ in range(100):
                    clients.enter_context(socket.create_connection(("127.0.0.1", listener.port)))
                # One turn to hear of them, one to accept them, and few for what follows from that.
                for _ in range(8):
                    await asyncio.sleep(0)
                connections = listener.connections
            await listener.drain()
        return connections

    assert uvloop.run(connect()) == 100


@pytest.mark.parametrize("kind", [PublicListener, InternalListener])
def test_each_listener_gets_its_share_when_two_accept_at_the_same_socket(
    settings: Settings, kind: type[Listener]
) -> None:
    """As with workers: whoever is the first to look does not take all who wait."""

    async def connect() -> list[int]:
        async with open_services(settings) as services:
            [sock] = listen_on(Address("127.0.0.1", 0), key="listen")
            with ExitStack() as clients:
                for _ in range(32):
                    clients.enter_context(socket.create_connection(sock.getsockname()))
                listeners = [kind(make_app(services), [each], at_once=16) for each in (sock, sock.dup())]
                for listener in listeners:
                    await listener.start()
                await until(lambda: sum(listener.connections for listener in listeners) == 32)
                connections = [listener.connections for listener in listeners]
            for listener in listeners:
                await listener.drain()
        return connections

    assert uvloop.run(connect()) == [16, 16]


@pytest.mark.parametrize(
    ("descriptors", "connections"),
    [
        pytest.param(80, 8, id="few"),
        pytest.param(1024, 448, id="usual"),
    ],
)
def test_affordable_connections_leave_descriptors_for_the_rest(descriptors: int, connections: int) -> None:
    """Both listeners together stay below the limit."""
    with limited(descriptors):
        assert affordable_connections() == connections


def test_server_serves_again_when_more_had_connected_than_it_has_descriptors(tmp_path: Path) -> None:
    """A flood of connections is turned away with a few lines in the log, and leaves nothing behind."""
    usual = AuthServer(tmp_path, secret=SECRET, deepstream_port=1)
    names = ("TORNADO_DS_LISTEN", "TORNADO_DS_INTERNAL_LISTEN")
    ports = [int(usual.settings[name].rpartition(":")[2]) for name in names]
    program = Program(
        ["sh", "-c", f'ulimit -n {DESCRIPTORS} && exec "$0" -m tornado_ds', sys.executable],
        env=usual.settings,
        log=tmp_path / "log",
        ready=f"http://{usual.internal}/readyz",
    )

    with program, ExitStack() as stack:
        flood = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            for port in ports
            for _ in range(DESCRIPTORS)
        ]
        wait_for(lambda: sum(map(_is_closed, flood)) > DESCRIPTORS)
        stack.close()
        # Until the server has noticed that all of them have gone, there is no room.
        for port, path in zip(ports, PATHS, strict=True):
            wait_for(partial(_is_served, f"http://127.0.0.1:{port}{path}"))

    assert "Traceback" not in program.output
    assert "cannot be accepted" not in program.output
    assert len(program.output.splitlines()) < 30


@contextmanager
def limited(descriptors: int) -> Iterator[None]:
    """This process may have so many open files, at most as many as before."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(descriptors, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


@contextmanager
def no_descriptors() -> Iterator[None]:
    """This process has all the open files that it may have."""
    with limited(1024), ExitStack() as stack:
        with suppress(OSError):
            while True:
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        yield


def _is_served(url: str) -> bool:
    try:
        return fetch(url).status == 200
    except OSError:
        return False


def _is_closed(client: socket.socket) -> bool:
    """Whether the server has hung up on *client*."""
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


@pytest.mark.gen_test
async def test_client_who_has_gone_before_its_turn_takes_no_place(services: Services) -> None:
    """What is no connection any more is not counted as one, and is no error of the server's."""
    server = Server(make_internal_app(services))
    await server.start(listen_on(Address("127.0.0.1", 0), key="internal_listen"))
    gone = socket.socket()
    gone.close()

    server._accepted(gone, None)
    meanwhile = server.connections
    await until(lambda: server.connections == 0)
    await server.drain(1)

    assert meanwhile == 1
