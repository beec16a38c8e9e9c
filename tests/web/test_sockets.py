"""Where a server listens: ports and unix sockets, taken, left, and never taken from somebody else."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from tests.web.wire import Wire, get
from tornado_ds.errors import SettingsError
from tornado_ds.handlers.routes import make_app, make_internal_app
from tornado_ds.listeners import InternalListener, PublicListener
from tornado_ds.services import Services
from tornado_ds.settings import Address, Settings, UnixAddress
from tornado_ds.sockets import listen_on, open_sockets, refuse


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where there is no socket yet."""
    return tmp_path / "public.sock"


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """Closes the sockets of one test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def on_unix(path: Path) -> Settings:
    """A unix socket for people, and a port for deepstream."""
    return Settings(listen=UnixAddress(path), internal_listen=Address("127.0.0.1", 0))


def client(closing: ExitStack, sock: socket.socket) -> socket.socket:
    """Somebody who begins to connect to *sock*; on this machine that is done at once or not at all."""
    client = closing.enter_context(socket.socket(sock.family, socket.SOCK_STREAM))
    client.setblocking(False)
    client.connect_ex(sock.getsockname())
    return client


def accepted(closing: ExitStack, sock: socket.socket) -> int:
    """How many have connected to *sock*."""
    count = 0
    while True:
        try:
            closing.enter_context(sock.accept()[0])
        except BlockingIOError:
            return count
        count += 1


def test_unix_socket_is_for_owner_and_group_and_gone_in_the_end(on_unix: Settings, path: Path) -> None:
    """A proxy in the group can connect, others cannot, whatever the umask; nothing is left behind."""
    before = os.umask(0)
    try:
        with open_sockets(on_unix):
            mode = path.stat().st_mode & 0o777
    finally:
        os.umask(before)

    assert mode == 0o660
    assert not path.exists()


def test_sockets_close_when_the_file_of_one_is_gone(on_unix: Settings, path: Path) -> None:
    """Somebody who tidied up was faster."""
    with open_sockets(on_unix) as sockets:
        path.unlink()

    assert all(sock.fileno() == -1 for sock in (*sockets.public, *sockets.internal))


def test_unix_socket_is_replaced_when_its_server_was_killed(path: Path, closing: ExitStack) -> None:
    """What a killed server has left does not keep the next one from starting."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    [sock] = listen_on(UnixAddress(path), key="listen")
    closing.enter_context(sock)
    client(closing, sock)

    assert accepted(closing, sock) == 1


def test_listen_on_refuses_when_another_server_is_there(path: Path, closing: ExitStack) -> None:
    """A server that lives keeps its socket, and still answers."""
    [theirs] = listen_on(UnixAddress(path), key="listen")
    closing.enter_context(theirs)

    with pytest.raises(SettingsError, match=f"^listen: cannot listen on unix:{path}: Address already in use$"):
        listen_on(UnixAddress(path), key="listen")

    client(closing, theirs)
    # The other server has looked whether anybody is there.
    assert accepted(closing, theirs) == 2


def test_listen_on_refuses_when_another_server_is_there_and_busy(path: Path, closing: ExitStack) -> None:
    """A server with so many waiting that nobody more can connect is alive all the same."""
    theirs = closing.enter_context(socket.socket(socket.AF_UNIX))
    theirs.bind(str(path))
    theirs.listen(0)
    while client(closing, theirs).connect_ex(str(path)) == errno.EISCONN:
        pass

    with pytest.raises(SettingsError, match=r"Address already in use$"):
        listen_on(UnixAddress(path), key="listen")


def test_listen_on_refuses_when_the_path_is_a_file(path: Path) -> None:
    """Only sockets are ever replaced."""
    path.write_text("precious")

    with pytest.raises(SettingsError, match=r"Address already in use$"):
        listen_on(UnixAddress(path), key="listen")

    assert path.read_text() == "precious"


def test_listen_on_refuses_when_there_is_no_folder(path: Path) -> None:
    """The text names the key and the path."""
    with pytest.raises(SettingsError, match=r"^internal_listen: cannot listen on unix:.*/no/s: No such file"):
        listen_on(UnixAddress(path.parent / "no" / "s"), key="internal_listen")


@pytest.mark.parametrize("host", ["127.0.0..1", "x" * 64])
def test_listen_on_refuses_when_no_host_can_be_called_so(host: str) -> None:
    """A slip in an address ends the start in one line."""
    with pytest.raises(SettingsError, match=rf"^listen: cannot listen on {host}:80: there is no such name or address$"):
        listen_on(Address(host, 80), key="listen")


def test_open_sockets_leaves_nothing_when_one_of_them_cannot_be_had(on_unix: Settings, path: Path) -> None:
    """A start that fails at the second socket removes the first."""
    taken = on_unix.model_copy(update={"internal_listen": UnixAddress(path.parent / "no" / "s")})

    with pytest.raises(SettingsError), open_sockets(taken):
        pass

    assert not path.exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "unix"])
def test_nobody_connects_when_the_sockets_refuse(path: Path, closing: ExitStack, host: str) -> None:
    """Who has connected before is there to be accepted, and nobody else comes."""
    sockets = listen_on(UnixAddress(path) if host == "unix" else Address(host, 0), key="listen")
    [sock] = [closing.enter_context(sock) for sock in sockets]
    client(closing, sock)

    refuse(sockets)
    client(closing, sock)

    assert accepted(closing, sock) == 1


def test_socket_of_the_next_server_stays_when_the_one_before_closes(on_unix: Settings, path: Path) -> None:
    """A server that still finishes its work does not take the socket away from the one that follows it."""
    with ExitStack() as first:
        first.enter_context(open_sockets(on_unix))
        path.unlink()
        with open_sockets(on_unix):
            first.close()

            is_there = path.exists()

    assert is_there


@pytest.mark.parametrize("kind", [PublicListener, InternalListener])
@pytest.mark.gen_test
async def test_unix_socket_stays_when_one_of_several_workers_leaves(
    services: Services, path: Path, closing: ExitStack, kind: type[PublicListener | InternalListener]
) -> None:
    """A worker that goes in good order leaves the file to the others, whatever its loop does by itself."""
    [sock] = listen_on(UnixAddress(path), key="listen")
    others = closing.enter_context(socket.fromfd(sock.fileno(), sock.family, sock.type))
    others.setblocking(False)
    listener = kind(make_internal_app(services), [sock])
    await listener.start()

    await listener.drain(others_go_on=True)

    client(closing, others)
    assert accepted(closing, others) == 1


@pytest.mark.parametrize(
    ("trusted_proxies", "address"), [((), "unix"), (("unix",), "198.51.100.7")], ids=["stranger", "trusted-proxy"]
)
@pytest.mark.gen_test
async def test_both_listeners_serve_on_unix_sockets_and_know_who_asks(
    services: Services, tmp_path: Path, trusted_proxies: tuple[str, ...], address: str
) -> None:
    """Requests come through a unix socket, and the proxy there is believed if it is trusted."""
    services = replace(services, settings=services.settings.model_copy(update={"trusted_proxies": trusted_proxies}))
    paths = [tmp_path / "public.sock", tmp_path / "internal.sock"]
    public, internal = (listen_on(UnixAddress(path), key="listen") for path in paths)
    listeners = [
        PublicListener(make_app(services), public),
        InternalListener(make_internal_app(services), internal),
    ]
    answers = []
    with structlog.testing.capture_logs() as logs:
        for listener, path, page in zip(listeners, paths, ["/login", "/nowhere"], strict=True):
            await listener.start()
            async with Wire(path) as wire:
                wire.send(get(page, "X-Forwarded-For: 198.51.100.7"))
                answers.append((await wire.answer()).status)
            await listener.drain()

    assert answers == [200, 404]
    assert [line["address"] for line in logs if line["event"] == "request"] == [address, address]
