"""A TCP proxy that carries connections to a server, until it is told to do worse."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

# With this set a socket is reset when it is closed, instead of being closed in order.
_NO_LINGER = struct.pack("ii", 1, 0)


class Proxy:
    """
    Listens on a free port of 127.0.0.1 inside an `async with` block.

    *connect* opens a connection to the server behind it. Everything goes on at
    once when a fault is over: what a hole has swallowed is still delivered, as
    TCP would do it, unless `forget` was called meanwhile.
    """

    def __init__(self, connect: Callable[[], Awaitable[Streams]]) -> None:
        self._connect = connect
        self._links: set[_Link] = set()
        self._accepts = True
        self._flows = asyncio.Event()
        self._flows.set()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self.delay = 0.0

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.sockets[0].getsockname()[1])

    def hole(self) -> None:
        """Swallow everything; new connections are taken, and nobody ever answers them."""
        self._flows.clear()

    def fill(self) -> None:
        """Undo `hole`."""
        self._flows.set()

    def forget(self) -> None:
        """Carry nothing on the connections there are, and tell nobody, like a firewall that lost its table."""
        for link in self._links:
            link.is_forgotten = True

    def refuse(self) -> None:
        """Reset new connections."""
        self._accepts = False

    def accept(self) -> None:
        """Undo `refuse`."""
        self._accepts = True

    def cut(self) -> None:
        """Close all connections in order."""
        for link in self._links:
            link.close()

    async def wait_until_idle(self) -> None:
        """Return once all connections are closed, and both ends have had a moment to notice."""
        await self._is_idle.wait()
        for _ in range(10):
            await asyncio.sleep(0)

    def reset(self) -> None:
        """Reset all connections."""
        for link in self._links:
            link.reset()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        self.fill()
        self.reset()
        await self.wait_until_idle()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        self._links.add(link)
        self._is_idle.clear()
        try:
            if not self._accepts:
                link.reset()
                return
            await self._flows.wait()
            there_reader, there_writer = await self._connect()
            link.writers.append(there_writer)
            await asyncio.gather(self._pump(link, reader, there_writer), self._pump(link, there_reader, writer))
        except OSError:
            link.reset()
        finally:
            link.close()
            self._links.discard(link)
            if not self._links:
                self._is_idle.set()

    async def _pump(self, link: "_Link", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await asyncio.sleep(self.delay)
                await self._flows.wait()
                if not link.is_forgotten:
                    writer.write(data)
                    await writer.drain()
        if not link.is_forgotten:
            writer.close()


class _Link:
    """A connection of a client, and ours to the server once there is one."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writers = [writer]
        self.is_forgotten = False

    def close(self) -> None:
        for writer in self.writers:
            writer.close()

    def reset(self) -> None:
        for writer in self.writers:
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            writer.transport.abort()
