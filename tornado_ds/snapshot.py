"""What has ended or changed during one token lifetime, in memory."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal, Protocol

from tornado_ds.clock import Clock, SteadyClock

EventKind = Literal["session.ended", "session.renewed", "user.changed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEvent:
    """
    One row of the change feed.

    *seq* is 0 until the row is written. *expires_at* (seconds) is when the last
    token that the event is about runs out: after that nobody needs the event.
    """

    kind: EventKind
    username: str
    expires_at: int
    created_at: int
    seq: int = 0
    sid: str | None = None
    version: int | None = None
    reason: str | None = None


class Subject(Protocol):
    """What of a verified token the snapshot looks at: `Claims`, or less."""

    @property
    def sid(self) -> str: ...

    @property
    def username(self) -> str: ...

    @property
    def version(self) -> int: ...


class Standing(Enum):
    """How a token that is valid by itself stands at this moment."""

    LIVE = auto()
    ENDED = auto()
    DISABLED = auto()
    STALE = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class _Change:
    seq: int
    version: int
    expires_at: int


class SessionSnapshot:
    """
    Answers in two look-ups whether a verified token still counts.

    A `Feed` keeps it up to date. Applying an event twice, or late, changes nothing.
    """

    SWEEP_SECONDS = 60

    def __init__(self, *, clock: Clock, stale_for: float) -> None:
        self._clock = SteadyClock(clock)
        self._stale_for = stale_for
        self._ended: dict[str, SessionEvent] = {}
        self._changed: dict[str, _Change] = {}
        self._read_at: float | None = None
        self._swept_at = self._clock.now()
        # Another number whenever a token may stand otherwise than before, time aside.
        self.edition = 0

    def standing(self, claims: Subject) -> Standing:
        """Say how a token with *claims* stands; UNKNOWN means that the feed was not readable for too long."""
        # An end that we know of stays an end, however old our knowledge is.
        ended = self._ended.get(claims.sid)
        if ended is not None:
            return Standing.DISABLED if ended.reason == "disabled" else Standing.ENDED
        if not self.is_fresh:
            return Standing.UNKNOWN
        change = self._changed.get(claims.username)
        if change is not None and claims.version < change.version:
            return Standing.STALE
        return Standing.LIVE

    def apply(self, events: Iterable[SessionEvent]) -> None:
        """Take in *events*, in any order."""
        for event in events:
            if event.kind == "session.ended" and event.sid is not None:
                self._ended[event.sid] = event
                self.edition += 1
            elif event.kind == "user.changed" and event.version is not None:
                known = self._changed.get(event.username)
                if known is None or known.seq < event.seq:
                    self._changed[event.username] = _Change(event.seq, event.version, event.expires_at)
                    self.edition += 1
        self._sweep()

    def mark_read(self) -> None:
        """Note that the feed was read to its end just now."""
        self._read_at = self._clock.monotonic()

    @property
    def age(self) -> float | None:
        """Seconds since the feed was last read, None if it never was."""
        return None if self._read_at is None else self._clock.monotonic() - self._read_at

    @property
    def is_fresh(self) -> bool:
        """True while the feed was read recently enough to answer from memory."""
        return self._read_at is not None and self._clock.monotonic() - self._read_at <= self._stale_for

    def __len__(self) -> int:
        """How many ends and changes are remembered."""
        return len(self._ended) + len(self._changed)

    def _sweep(self) -> None:
        now = self._clock.now()
        if abs(now - self._swept_at) < self.SWEEP_SECONDS:
            return
        self._swept_at = now
        self._ended = {sid: event for sid, event in self._ended.items() if event.expires_at > now}
        self._changed = {name: change for name, change in self._changed.items() if change.expires_at > now}
