"""Forgets what nobody needs any more, in small steps."""

import asyncio
import random

import structlog

from tornado_ds.clock import Clock
from tornado_ds.errors import StorageError
from tornado_ds.sessions import SessionStore
from tornado_ds.throttle import Throttle

log = structlog.get_logger("housekeeping")


class Housekeeping:
    """Prunes the feed, the sessions and the failed logins; any number of servers may do it at once."""

    STEP = 500
    INTERVAL_SECONDS = 60

    def __init__(self, store: SessionStore, *, throttle: Throttle, clock: Clock, keep_ended: int) -> None:
        self._store = store
        self._throttle = throttle
        self._clock = clock
        self._keep_ended = keep_ended

    async def run(self) -> None:
        """Prune now and then, until cancelled."""
        while True:
            # Spread, so that servers that start together do not prune together.
            await asyncio.sleep(self.INTERVAL_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311
            try:
                await self.prune()
            except StorageError as exc:
                log.warning("nothing pruned", reason=str(exc))

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

    async def _step(self) -> int:
        now = int(self._clock.now())
        pruned = await self._store.prune(events_before=now, sessions_before=now - self._keep_ended, limit=self.STEP)
        return pruned + await self._throttle.prune(limit=self.STEP)
