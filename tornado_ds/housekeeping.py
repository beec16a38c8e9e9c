"""Forgets what nobody needs any more, in small steps, and counts what is there."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import structlog

from tornado_ds.audit import Audit
from tornado_ds.clock import Clock, SteadyClock
from tornado_ds.errors import StorageError
from tornado_ds.sessions import SessionStore
from tornado_ds.throttle import Throttle

if TYPE_CHECKING:
    from tornado_ds.metrics import Metrics

log = structlog.get_logger("housekeeping")


class Housekeeping:
    """
    Prunes the feed, the sessions, the failed logins and the audit trail, and counts the sessions that live.

    Any number of servers may do it at once.
    """

    STEP = 500
    INTERVAL_SECONDS = 60

    def __init__(
        self,
        store: SessionStore,
        *,
        throttle: Throttle,
        audit: Audit,
        clock: Clock,
        keep_ended: int,
        metrics: "Metrics",
    ) -> None:
        self._store = store
        self._throttle = throttle
        self._audit = audit
        self._clock = SteadyClock(clock)
        self._keep_ended = keep_ended
        self._metrics = metrics

    async def run(self) -> None:
        """Count at once, prune now and then and count again, until cancelled."""
        await self._try(self.count)
        while True:
            # Spread, so that servers that start together do not prune together.
            await asyncio.sleep(self.INTERVAL_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311
            await self._try(self.prune)
            await self._try(self.count)

    async def count(self) -> None:
        """
        Note how many sessions live.

        Raises:
            StorageError: The database did not answer; the figure of before stays.
        """
        self._metrics.sessions_live.set(await self._store.count(live_at=int(self._clock.now())))

    async def prune(self) -> int:
        """
        Prune until nothing is left to prune, and return how many rows went.

        Raises:
            StorageError: The database did not answer; what was pruned before stays so.
        """
        total = 0
        while pruned := await self._step():
            total += pruned
            # Others want to write in between.
            await asyncio.sleep(0)
        return total

    async def _try(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        # Not only StorageError: a slip of ours must not end it for good.
        except Exception as exc:
            log.warning("housekeeping failed", reason=str(exc), exc_info=not isinstance(exc, StorageError))

    async def _step(self) -> int:
        now = int(self._clock.now())
        pruned = await self._store.prune(events_before=now, sessions_before=now - self._keep_ended, limit=self.STEP)
        pruned += await self._throttle.prune(limit=self.STEP)
        return pruned + await self._audit.prune(limit=self.STEP)
