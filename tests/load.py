"""Clients that ask a server without a pause, and note every request that it left without an answer."""

import asyncio
import random
import ssl
from pathlib import Path
from types import TracebackType

from tests.web.wire import Wire, get

# Half of the clients keep their connections, and think for up to so long between two requests.
THINK_SECONDS = 0.02


class Load:
    """
    *clients* at the port or unix socket *address*, asking for *path* while the context lasts.

    A request is lost if it was sent over a connection that stood, and no whole
    answer came. A connection that did not come about is none: its client knows
    that nothing was done, and asks again.
    """

    def __init__(
        self, address: int | Path, *, clients: int = 20, path: str = "/login", tls: ssl.SSLContext | None = None
    ) -> None:
        self.answered = 0
        self.refused = 0
        self.lost: list[str] = []
        self._address = address
        self._clients = clients
        self._request = get(path)
        self._tls = tls
        self._is_over = False

    async def __aenter__(self) -> "Load":
        self._tasks = [asyncio.create_task(self._keep_asking(number % 2 == 0)) for number in range(self._clients)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def until_answered(self, more: int) -> None:
        """Return when so many more requests were answered."""
        enough = self.answered + more
        while self.answered < enough:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def _keep_asking(self, stays: bool) -> None:
        while not self._is_over:
            try:
                async with Wire(self._address, tls=self._tls) as wire:
                    await self._converse(wire, stays)
            except OSError:
                self.refused += 1
                await asyncio.sleep(THINK_SECONDS)

    async def _converse(self, wire: Wire, stays: bool) -> None:
        is_open = True
        while is_open and not self._is_over and not wire.reader.at_eof():
            wire.send(self._request)
            try:
                answer = await wire.answer()
            except (OSError, EOFError) as exc:
                self.lost.append(repr(exc))
                return
            self.answered += 1
            is_open = stays and answer.headers.get("connection") != "close"
            await asyncio.sleep(random.random() * THINK_SECONDS)
