"""Accepts connections for both listeners, whatever the descriptors and the other connections are doing."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

import structlog

log = structlog.get_logger("server")

# Connections that wait to be accepted; after a restart of deepstream they come all at once.
BACKLOG = 4096

# Who cannot be accepted waits so long until it is tried again.
REST_SECONDS = 1.0


class Acceptor:
    """
    Hands every connection to *sock* to *accepted*, up to *at_once* before others get their turn.

    libuv accepts one in a turn of the loop, and a turn is long while others ask: in a
    storm some would wait until it is over. When the system has no descriptor for
    another one it rests for a second, and those who connect wait meanwhile; Tornado's
    own would try again at once, for ever, with a traceback each time.
    """

    def __init__(self, sock: socket.socket, accepted: Callable[[socket.socket, Any], None], *, at_once: int) -> None:
        self._sock = sock
        self._accepted = accepted
        self._at_once = at_once
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._go_on()

    def close(self) -> None:
        """Accept who has connected already, for the kernel would hang up on them; then close the socket."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._sock)
        with contextlib.suppress(OSError):
            for _ in range(BACKLOG):
                self._accepted(*self._sock.accept())
        self._sock.close()

    def _go_on(self) -> None:
        self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(self._at_once):
            try:
                connection, address = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as exc:
                self._rest(exc)
                return
            self._accepted(connection, address)

    def _rest(self, error: OSError) -> None:
        log.error("connections cannot be accepted", reason=error.strerror)
        self._loop.remove_reader(self._sock)
        self._timer = self._loop.call_later(REST_SECONDS, self._go_on)
