"""Time as a parameter, so that an expiry test needs no sleep; and how it is written."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Anything that knows the time."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never steps back, whatever happens to the date."""
        ...


class SystemClock:
    """The clock of the machine."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


class SteadyClock:
    """
    Another clock whose date, once it is looked at, is never ahead of the time that has passed since.

    To throw away by: when the date of a machine is set a year ahead by mistake,
    and back, nothing must be gone that still mattered.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.monotonic = clock.monotonic
        self._began = clock.now() - clock.monotonic()

    def now(self) -> float:
        return min(self._clock.now(), self._began + self.monotonic())


def iso(seconds: int) -> str:
    """Return a moment (seconds since the epoch) in UTC as ISO 8601 has it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
