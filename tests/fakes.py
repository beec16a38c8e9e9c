"""Small real implementations that tests hand in where the server has something slower or less obedient."""


class ManualClock:
    """A clock that goes on only when it is told to."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 1_000.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self._now += seconds
        self._monotonic += seconds

    def set(self, now: float) -> None:
        """Set the date, forwards or backwards; no time passes."""
        self._now = now
