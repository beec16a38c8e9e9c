"""Reads users who are asked for at the same moment in one query."""

import asyncio

from tornado_ds.errors import StorageError
from tornado_ds.users import User, UserStore

# deepstream waits 2 s for our answer.
PATIENCE_SECONDS = 1.3


class UserLoader:
    """Joins look-ups: a change of 10 000 users whose clients all come back is a handful of queries, not 10 000."""

    def __init__(self, users: UserStore) -> None:
        self._users = users
        self._waiting: dict[str, asyncio.Future[User | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def get(self, username: str) -> User | None:
        """
        Return the user as the store has it from now on, or None.

        Raises:
            StorageError: The store did not answer, or not in time.
        """
        # A query that is under way may have read what was there before the
        # change that the caller knows of; so names join only the next one.
        future = self._waiting.get(username)
        if future is None:
            future = self._waiting[username] = asyncio.get_running_loop().create_future()
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        try:
            # Two queries can pass until the answer is there, and a store has its own idea of time.
            async with asyncio.timeout(PATIENCE_SECONDS):
                # One of those who wait may hang up; the others still want the answer.
                return await asyncio.shield(future)
        except TimeoutError as exc:
            raise StorageError("the user store does not answer in time") from exc

    async def _read(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, {}
                await self._answer(batch)
        finally:
            self._reading = None

    async def _answer(self, batch: dict[str, asyncio.Future[User | None]]) -> None:
        try:
            # A store that never answers would hold up the next query, and so everybody, for ever.
            async with asyncio.timeout(PATIENCE_SECONDS):
                found = await self._users.get_many(batch)
        except Exception as exc:  # noqa: BLE001  # raised again in each of those who wait
            for future in batch.values():
                future.set_exception(exc)
                # Nobody may be left to take it.
                future.exception()
            return
        for name, future in batch.items():
            future.set_result(found.get(name))
