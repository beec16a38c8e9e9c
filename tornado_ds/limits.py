"""What no peer may exceed, at either listener: time, a number of connections, and lines in the log."""

import asyncio
import resource
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Protocol

# So often a line says what strangers do again and again.
REPORT_SECONDS = 1.0

# While it stops, a server waits so long for what is already on its way to it.
LAST_CALL_SECONDS = 0.25

# Each costs memory, so that even endless descriptors do not allow for more.
_MOST_CONNECTIONS = 20_000

# Files, the database and our own wake-ups need descriptors too.
_OTHER_DESCRIPTORS = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What no peer may exceed: seconds, and a number of connections.

    *idle* is the time from one answer to the end of the next request's head, *write* how long
    a peer may leave unread what was written. All may last up to *tick* longer.
    """

    idle: float = 10.0
    body: float = 5.0
    write: float = 30.0
    tick: float = 1.0
    connections: int | None = None


class Timed(Protocol):
    """A connection that is aborted once its *deadline* is over."""

    deadline: float

    def abort(self) -> None: ...


class Deadlines:
    """
    The deadlines of whoever begins now to be *idle*, to send a *body*, or to leave unread what we *write*.

    One look at all connections every tick costs less than a timer for each request. Time goes by in
    ticks, also when one of them comes late: that the loop stood still is no fault of the clients.
    """

    def __init__(self, limits: Limits, connections: Callable[[], Iterable[Timed]]) -> None:
        self._limits = limits
        self._connections = connections
        self._timer: asyncio.TimerHandle | None = None
        self._now = 0.0
        self.idle = self.body = self.write = inf

    def start(self) -> None:
        """Keep the time from now on."""
        limits = self._limits
        self._now += limits.tick
        self.idle = self._now + limits.tick + limits.idle
        self.body = self._now + limits.tick + limits.body
        self.write = self._now + limits.tick + limits.write
        # Before anybody is hung up on, so that nothing that fails there can stop the clock.
        self._timer = asyncio.get_running_loop().call_later(limits.tick, self.start)
        for connection in list(self._connections()):
            if connection.deadline < self._now:
                connection.abort()

    def stop(self) -> None:
        """Let everybody take their time."""
        if self._timer is not None:
            self._timer.cancel()


class Tally:
    """
    Counts what happens, and has *report* log it in one line a second at most: whoever floods us must not flood the log.

    *report* is called with the number, and with what there was to say the last time.
    """

    def __init__(self, report: Callable[[int, str], None]) -> None:
        self._report = report
        self._count = 0
        self._last = ""

    def add(self, last: str = "") -> None:
        """Count once more."""
        if not self._count:
            asyncio.get_running_loop().call_later(REPORT_SECONDS, self._tell)
        self._count += 1
        self._last = last

    def _tell(self) -> None:
        self._report(self._count, self._last)
        self._count = 0


def affordable_connections() -> int:
    """Return how many connections each of two listeners can have with descriptors left for everything else."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    rest = limit - max(limit // 8, _OTHER_DESCRIPTORS)
    return min(_MOST_CONNECTIONS, max(1, rest // 2))
