"""Whoever takes too long is hung up on, by a clock that nothing stops."""

import asyncio
from math import inf

import pytest

from tornado_ds.limits import Deadlines, Limits

LIMITS = Limits(idle=0.002, tick=0.001)


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop that can have stood still."""

    skipped = 0.0

    def time(self) -> float:
        return super().time() + self.skipped


class Client:
    """Somebody who is idle, and hung up on with an *error*, if there is one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.deadline = inf
        self.aborts = 0
        self._error = error

    def abort(self) -> None:
        self.aborts += 1
        if self._error is not None:
            raise self._error


async def tick(deadlines: Deadlines) -> None:
    """Return when the time was looked at once more."""
    before = deadlines.idle
    async with asyncio.timeout(10):
        while deadlines.idle == before:  # noqa: ASYNC110
            await asyncio.sleep(0)


def test_clock_goes_on_when_somebody_cannot_be_hung_up_on(caplog: pytest.LogCaptureFixture) -> None:
    """A slip of ours costs one look at the time, and not all that would come."""
    client = Client(RuntimeError("a slip"))

    async def keep_time() -> None:
        deadlines = Deadlines(LIMITS, lambda: [client])
        deadlines.start()
        client.deadline = 0.0
        for _ in range(3):
            await tick(deadlines)
        deadlines.stop()

    asyncio.run(keep_time())

    assert 3 == client.aborts
    assert ["RuntimeError: a slip"] * 3 == [(record.exc_text or "").splitlines()[-1] for record in caplog.records]


def test_nobody_is_hung_up_on_because_the_loop_stood_still() -> None:
    """Whoever had no chance to go on has all of the time for it afterwards, and is hung up on then."""
    client = Client()

    async def stand_still(loop: SkippingLoop) -> tuple[int, int]:
        deadlines = Deadlines(LIMITS, lambda: [client])
        deadlines.start()
        client.deadline = deadlines.idle
        loop.skipped += 3600
        await tick(deadlines)
        at_once = client.aborts
        for _ in range(4):
            await tick(deadlines)
        deadlines.stop()
        return at_once, client.aborts

    loop = SkippingLoop()
    aborts = loop.run_until_complete(stand_still(loop))
    loop.close()

    assert aborts[0] == 0 < aborts[1]
