"""What a server listens on: bound once, before there are workers, so that all of them share it."""

import contextlib
import ctypes
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tornado.netutil import bind_sockets

from tornado_ds.acceptor import BACKLOG
from tornado_ds.errors import SettingsError
from tornado_ds.settings import Address, Settings, UnixAddress

# A unix socket is for its owner and its group, to which the proxy's user has to belong.
_NOT_FOR_OTHERS = 0o117

_SO_ATTACH_FILTER = 26
# For Linux' packet filter: of the TCP packets for a socket, drop those that ask for a connection.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the octet of the TCP header that holds the flags
    (0x45, 0, 1, 0x02),  # go on to the next line if SYN is among them, else to the one behind it
    (0x06, 0, 0, 0),  # drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # take all of it
)


@dataclass(frozen=True, slots=True)
class Sockets:
    """The sockets of both listeners."""

    public: Sequence[socket.socket]
    internal: Sequence[socket.socket]


class UnixSocket(socket.socket):
    """A unix socket whose file goes with it."""

    def __init__(self) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)

    def bind(self, address: str) -> None:  # type: ignore[override]
        """Bind it to the path *address*, for owner and group only."""
        before = os.umask(_NOT_FOR_OTHERS)
        try:
            super().bind(address)
        finally:
            os.umask(before)
        self._path = Path(address)
        self._file = _identity(self._path)

    def unlink(self) -> None:
        """Let nobody else connect; the socket of a server that has come after us stays."""
        if _identity(self._path) == self._file:
            self._path.unlink(missing_ok=True)


@contextmanager
def open_sockets(settings: Settings) -> Iterator[Sockets]:
    """
    The sockets that *settings* name, closed at the end.

    Raises:
        SettingsError: One of them cannot be had.
    """
    public = listen_on(settings.listen, key="listen")
    try:
        internal = listen_on(settings.internal_listen, key="internal_listen")
        try:
            yield Sockets(public=public, internal=internal)
        finally:
            _close(internal)
    finally:
        _close(public)


def listen_on(address: Address | UnixAddress, *, key: str) -> Sequence[socket.socket]:
    """
    Return sockets that are bound to *address*.

    The file of a unix socket is replaced if nobody listens there any more.

    Raises:
        SettingsError: That is not possible; the text names the setting *key*.
    """
    try:
        if isinstance(address, UnixAddress):
            return [_listen_on_path(address.path)]
        return bind_sockets(address.port, address.host, backlog=BACKLOG)
    except OSError as exc:
        raise SettingsError(f"{key}: cannot listen on {address}: {exc.strerror}") from exc
    except UnicodeError as exc:
        # Of names with an empty part, say, and of addresses with a dot too many.
        raise SettingsError(f"{key}: cannot listen on {address}: there is no such name or address") from exc


def refuse(sockets: Sequence[socket.socket]) -> None:
    """
    Let nobody else connect to *sockets*, in any process; who has connected, or has begun to, is not affected.

    Without it, somebody always connects between the last look and the end, and
    is hung up on by the kernel. Whoever comes later asks again in a second, and
    may find the next server there. On systems other than Linux, ports do not refuse.
    """
    for sock in sockets:
        if isinstance(sock, UnixSocket):
            sock.unlink()
        elif sys.platform == "linux":
            _drop_new(sock)


def _drop_new(sock: socket.socket) -> None:
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in _DROP_SYN))
    option = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(program))
    # Where filters are not allowed, a few connections are lost in a moment of great load.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)


def _listen_on_path(path: Path) -> socket.socket:
    if path.is_socket() and not _is_alive(path):
        path.unlink()
    sock = UnixSocket()
    try:
        sock.setblocking(False)
        sock.bind(str(path))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _is_alive(path: Path) -> bool:
    """Return whether somebody listens on the unix socket *path*."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            # So many wait to be accepted that there is no room for us.
            return True
    return True


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells the file at *path* from one that takes its place; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns


def _close(sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        if isinstance(sock, UnixSocket):
            sock.unlink()
        sock.close()
