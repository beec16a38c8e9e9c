"""Whether this server can do all of its work, for whoever sends it traffic or watches it."""

import asyncio
from collections.abc import Awaitable, Callable

from tornado_ds.clock import Clock
from tornado_ds.errors import StorageError
from tornado_ds.snapshot import SessionSnapshot

# Kubernetes and others wait one second for an answer.
PATIENCE_SECONDS = 0.8

# A flood of probes is no flood of queries.
KEEP_SECONDS = 1.0

# The feed is read several times a second. Beyond this, ends of sessions are not heard of
# in time, even if connections may still be checked from memory.
MAX_FEED_AGE = 5.0


class Readiness:
    """
    Knows what is in the way of this server's work.

    *revision* asks the database for the revision of its tables; *needed* is the one that this version works with.
    """

    def __init__(
        self,
        *,
        revision: Callable[[], Awaitable[str | None]],
        needed: str,
        snapshot: SessionSnapshot,
        clock: Clock,
    ) -> None:
        self._revision = revision
        self._needed = needed
        self._snapshot = snapshot
        self._clock = clock
        self._asked_at = 0.0
        self._asking: asyncio.Task[dict[str, str]] | None = None
        self.is_draining = False

    async def obstacles(self) -> dict[str, str]:
        """
        Return what is not ready (`database`, `migrations`, `feed`, `draining`), each with why; nothing if all is.

        Takes `PATIENCE_SECONDS` at most, whatever the database does, and asks it
        once in `KEEP_SECONDS`, however many ask here.
        """
        found = await self._ask_database()
        age = self._snapshot.age
        if age is None:
            found["feed"] = "the change feed was never read"
        elif age > MAX_FEED_AGE or not self._snapshot.is_fresh:
            found["feed"] = f"the change feed was last read {age:.0f} s ago"
        if self.is_draining:
            found["draining"] = "the server is stopping"
        return found

    async def _ask_database(self) -> dict[str, str]:
        now = self._clock.monotonic()
        if self._asking is None or (self._asking.done() and now - self._asked_at >= KEEP_SECONDS):
            self._asked_at = now
            self._asking = asyncio.create_task(self._look())
        # Not cancelled when it takes long: to give up a query can take as long as the query.
        await asyncio.wait([self._asking], timeout=PATIENCE_SECONDS)
        if not self._asking.done():
            return {"database": f"the database does not answer within {PATIENCE_SECONDS} s"}
        return dict(self._asking.result())

    async def _look(self) -> dict[str, str]:
        try:
            revision = await self._revision()
        except StorageError as exc:
            return {"database": str(exc)}
        if revision != self._needed:
            return {
                "migrations": f"the database is at revision {revision or 'none'}, this version needs {self._needed}"
            }
        return {}
