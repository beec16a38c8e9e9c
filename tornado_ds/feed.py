"""Follows the change feed of the database into this process's snapshot."""

import asyncio
from collections.abc import Sequence

import structlog

from tornado_ds.clock import Clock
from tornado_ds.errors import StorageError
from tornado_ds.sessions import SessionStore
from tornado_ds.snapshot import SessionEvent, SessionSnapshot

log = structlog.get_logger("feed")


class Feed:
    """
    Reads new events a few times a second.

    In PostgreSQL a number can become visible after a higher one, and a rolled
    back transaction leaves a number out for ever. So each gap is asked for
    again during `OVERLAP_SECONDS`, which is longer than the database lets any
    of our transactions live (see `tornado_ds.storage.database`).
    """

    INTERVAL_SECONDS = 0.2
    OVERLAP_SECONDS = 60
    MAX_GAPS = 1000

    def __init__(self, store: SessionStore, *, snapshot: SessionSnapshot, clock: Clock) -> None:
        self._store = store
        self._snapshot = snapshot
        self._clock = clock
        self._position: int | None = None
        self._gaps: dict[int, float] = {}

    async def run(self) -> None:
        """Follow the feed until cancelled; while it cannot be read, keep trying and say so once."""
        is_lost = False
        while True:
            try:
                await self.read()
            except StorageError as exc:
                if not is_lost:
                    log.error("feed lost", reason=str(exc))
                is_lost = True
            else:
                if is_lost:
                    log.info("feed back")
                is_lost = False
            await asyncio.sleep(self.INTERVAL_SECONDS)

    async def read(self) -> Sequence[SessionEvent]:
        """
        Take in what is new, and return it.

        The first call takes in everything that still matters.

        Raises:
            StorageError: The database did not answer; the next call goes on from the same place.
        """
        if self._position is None:
            events = await self._store.events(after=0, alive_at=int(self._clock.now()))
            # Gaps among them may be events of transactions that are not over yet.
            self._position = max((event.seq for event in events), default=0)
            self._watch(range(max(1, self._position - self.MAX_GAPS), self._position))
        else:
            events = await self._store.events(after=self._position, also=tuple(self._gaps))
            highest = max((event.seq for event in events), default=self._position)
            self._watch(range(self._position + 1, highest + 1))
            self._position = max(self._position, highest)
        for event in events:
            self._gaps.pop(event.seq, None)
        self._forget_old_gaps()
        self._snapshot.apply(events)
        self._snapshot.mark_read()
        return events

    def _watch(self, numbers: range) -> None:
        until = self._clock.monotonic() + self.OVERLAP_SECONDS
        self._gaps.update((number, until) for number in numbers[-self.MAX_GAPS :])

    def _forget_old_gaps(self) -> None:
        now = self._clock.monotonic()
        self._gaps = {number: until for number, until in self._gaps.items() if until > now}
