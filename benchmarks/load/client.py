"""An HTTP client of our own, on uvloop and llhttp, which looks at every single answer."""

import asyncio
import gc
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import uvloop
from httptools import HttpResponseParser

from benchmarks.machine import load_core, on_core

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """One response; status 0 if the connection broke."""

    status: int
    body: bytes = b""


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time; methods that begin with `on_` are the parser's callbacks."""

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self._waiter: asyncio.Future[Answer] | None = None
        self._body = b""
        self.is_open = False

    @classmethod
    async def open(cls, address: str) -> "Connection":
        """Return a connection to host:port."""
        host, _, port = address.rpartition(":")
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, int(port))
        return connection

    async def ask(self, request: bytes) -> Answer:
        """Return the answer to one request."""
        if not self.is_open:
            return Answer(0)
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiter

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._resolve(Answer(0))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        body, self._body = self._body, b""
        # Told that this was the last answer, a client sends nothing more (RFC 9112, section 9.6).
        self.is_open = self.is_open and self._parser.should_keep_alive()
        self._resolve(Answer(self._parser.get_status_code(), body))

    def _resolve(self, answer: Answer) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)


def run(main: Coroutine[Any, Any, T], *, pinned: bool = True) -> T:
    """Run *main* on uvloop, on the load's core if *pinned*."""
    with on_core(load_core()) if pinned else nullcontext(), _collector_out_of_the_way():
        return uvloop.run(main)


@contextmanager
def _collector_out_of_the_way() -> Iterator[None]:
    """No pause of the load's own may count as an answer's: the tokens are many objects to go through."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
