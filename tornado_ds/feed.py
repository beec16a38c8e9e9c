"""Follows the change feed of the database: into this process's snapshot, and on to whoever follows us."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import islice

import structlog

from tornado_ds.clock import Clock
from tornado_ds.errors import StorageError
from tornado_ds.sessions import SessionStore
from tornado_ds.snapshot import SessionEvent, SessionSnapshot

log = structlog.get_logger("feed")


@dataclass(frozen=True, slots=True)
class Batch:
    """
    What a follower is told at once; empty as a sign of life.

    With *is_reset* the follower may have missed something that is not kept any more.
    """

    events: Sequence[SessionEvent] = ()
    is_reset: bool = False


class Feed:
    """
    Reads new events a few times a second.

    In PostgreSQL a number can become visible after a higher one, and a rolled
    back transaction leaves a number out for ever. So each gap is asked for
    again during `OVERLAP_SECONDS`, which is longer than the database lets any
    of our transactions live (see `tornado_ds.storage.database`).

    The newest event is never pruned, and one that we take for it only when it has run
    out. If it is gone otherwise, a backup was restored, and numbers are given out
    again: everything is read again then.
    """

    INTERVAL_SECONDS = 0.2
    OVERLAP_SECONDS = 60
    MAX_GAPS = 1000
    # Of all that was read lately: databases take some 32 000 parameters in one query.
    MAX_WATCHED = 10_000
    HEARTBEAT_SECONDS = 15
    PAGE = 500

    # Followers who are further behind than this start again from the database.
    MAX_RECENT = 10_000

    def __init__(self, store: SessionStore, *, snapshot: SessionSnapshot, clock: Clock) -> None:
        self._store = store
        self._snapshot = snapshot
        self._clock = clock
        self._position: int | None = None
        self._newest: SessionEvent | None = None
        self._restarts = 0
        self._gaps: dict[int, float] = {}
        self._recent: deque[SessionEvent] = deque(maxlen=self.MAX_RECENT)
        self._published = 0
        self._news = asyncio.Event()
        self._is_closed = False
        self.followers = 0

    async def run(self) -> None:
        """Follow the feed until cancelled; while it cannot be read, keep trying and say so once."""
        is_lost = False
        while True:
            try:
                await self.read()
            # Not only StorageError: a slip of ours must not end it for good.
            except Exception as exc:
                if not is_lost:
                    log.error("feed lost", reason=str(exc), exc_info=not isinstance(exc, StorageError))
                is_lost = True
            else:
                if is_lost:
                    log.info("feed back")
                is_lost = False
            await asyncio.sleep(self.INTERVAL_SECONDS)

    async def read(self) -> Sequence[SessionEvent]:
        """
        Take in what is new, and return it.

        The first call takes in everything that still matters. However much there
        is, the database is asked for no more than a page of it at once.

        Raises:
            StorageError: The database did not answer; the next call goes on from the same place.
        """
        is_first = self._position is None
        taken: list[SessionEvent] = []
        is_more = True
        while is_more:
            events, is_more = await self._read_some()
            self._take_in(events)
            if events and not is_first:
                self._publish(events)
            taken += events
        self._snapshot.mark_read()
        return taken

    async def follow(self, last_id: int | None) -> AsyncGenerator[Batch]:
        """
        Yield what happened since the event *last_id*, and then what happens, until the feed is closed.

        Without *last_id*, and when that one is not kept any more, it begins with
        everything that still matters. Events may come twice. The iterator also
        ends for a follower who is too slow: it can come back with its last id; and,
        after a reset, for all of them when the database is another one.

        Raises:
            StorageError: The database did not answer.
        """
        position, restarts = self._published, self._restarts
        self.followers += 1
        try:
            async for batch in self._replay(last_id):
                yield batch
            # So that a follower with nothing to catch up on knows at once that it follows.
            yield Batch()
            while not self._is_closed and self._published - position <= len(self._recent):
                if self._restarts > restarts:
                    yield Batch(is_reset=True)
                    return
                news = self._news
                behind = self._published - position
                position = self._published
                if behind:
                    yield Batch(list(islice(self._recent, len(self._recent) - behind, None)))
                elif not await _is_set_within(news, self.HEARTBEAT_SECONDS):
                    yield Batch()
        finally:
            self.followers -= 1

    def close(self) -> None:
        """Let all followers go; they find another server, or this one when it is back."""
        self._is_closed = True
        self._news.set()

    async def _read_some(self) -> tuple[Sequence[SessionEvent], bool]:
        """Return some of what is new, and whether there can be more."""
        if self._position is None:
            return await self._read_all(), False
        return await self._read_news(self._position)

    def _take_in(self, events: Sequence[SessionEvent]) -> None:
        # Others can be late ones with lower numbers.
        if events and events[-1].seq == self._position:
            self._newest = events[-1]
        for event in events:
            self._gaps.pop(event.seq, None)
        self._forget_old_gaps()
        self._snapshot.apply(events)

    async def _read_all(self) -> Sequence[SessionEvent]:
        events = [event async for page in self._pages(0, alive_at=int(self._clock.now())) for event in page]
        self._position = max((event.seq for event in events), default=0)
        # Gaps among them may be events of transactions that are not over yet.
        self._watch(range(1, self._position), events)
        return events

    async def _read_news(self, position: int) -> tuple[Sequence[SessionEvent], bool]:
        """Return a page of what is new, and whether there can be more; everything if the database is another one."""
        # The newest event and late ones have room beside the page: without the newest, it would seem to be gone.
        limit = self.PAGE + 1 + len(self._gaps)
        found = await self._store.events(after=position - 1, also=tuple(self._gaps), limit=limit)
        if position and self._newest not in found and not self._is_pruned(position, found):
            log.warning("feed starts again: its newest event is gone, so an older state was restored", seq=position)
            self._restarts += 1
            self._gaps.clear()
            return await self._read_all(), False
        events = [event for event in found if event != self._newest]
        highest = max((event.seq for event in events), default=position)
        self._watch(range(position + 1, highest), events)
        self._position = max(position, highest)
        return events, len(found) == limit

    def _is_pruned(self, position: int, found: Sequence[SessionEvent]) -> bool:
        """True if the event at *position* ran out, and went when others came: a restore gives its number to another."""
        has_run_out = self._newest is not None and self._newest.expires_at <= self._clock.now()
        first = next((event.seq for event in found if event.seq >= position), position)
        return has_run_out and first > position

    async def _pages(self, position: int, *, alive_at: int) -> AsyncIterator[Sequence[SessionEvent]]:
        """Yield what matters at *alive_at* of what came after *position*: all at once would take too long."""
        while events := await self._store.events(after=position, alive_at=alive_at, limit=self.PAGE):
            yield events
            if len(events) < self.PAGE:
                return
            position = events[-1].seq

    async def _replay(self, last_id: int | None) -> AsyncIterator[Batch]:
        is_reset = last_id is not None and not await self._is_kept(last_id)
        if is_reset:
            yield Batch(is_reset=True)
        now = int(self._clock.now())
        position = 0
        if last_id is not None and not is_reset:
            # What was written lately may have become visible behind the follower's last id.
            position = min(last_id, await self._store.position_at(now - self.OVERLAP_SECONDS))
        async for events in self._pages(position, alive_at=now):
            yield Batch(events)

    async def _is_kept(self, last_id: int) -> bool:
        """True if everything after *last_id* is still in the database, and *last_id* is of this database."""
        first, last = await self._store.kept_events()
        return first - 1 <= last_id <= last

    def _publish(self, events: Sequence[SessionEvent]) -> None:
        self._recent.extend(events)
        self._published += len(events)
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _watch(self, numbers: range, seen: Sequence[SessionEvent]) -> None:
        """Ask again for those of *numbers* that were not *seen*; for the newest, if there are very many."""
        known = {event.seq for event in seen}
        missing = (number for number in reversed(numbers) if number not in known)
        until = self._clock.monotonic() + self.OVERLAP_SECONDS
        self._gaps.update((number, until) for number in islice(missing, self.MAX_GAPS))
        for number in sorted(self._gaps)[: -self.MAX_WATCHED]:
            del self._gaps[number]

    def _forget_old_gaps(self) -> None:
        now = self._clock.monotonic()
        self._gaps = {number: until for number, until in self._gaps.items() if until > now}


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
