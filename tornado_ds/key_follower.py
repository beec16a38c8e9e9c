"""Keeps a running server at the keys that are in the key file."""

import asyncio
from contextlib import suppress
from pathlib import Path

import structlog

from tornado_ds.errors import KeyRingError
from tornado_ds.key_file import read_key_ring
from tornado_ds.keys import Algorithm, KeyRing
from tornado_ds.tokens import TokenService

log = structlog.get_logger("keys")


class KeyFollower:
    """
    Looks at the key file once a second, and signs and verifies with what is in it.

    A file that is gone, or damaged, or another one, changes nothing until it is good again.
    """

    INTERVAL_SECONDS = 1.0

    def __init__(self, path: Path, algorithm: Algorithm, *, tokens: TokenService) -> None:
        self._path = path
        self._algorithm = algorithm
        self._tokens = tokens
        self._problem: str | None = None
        self._is_asked = asyncio.Event()

    async def run(self) -> None:
        """Follow the file until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.INTERVAL_SECONDS):
                    await self._is_asked.wait()
            self._is_asked.clear()
            await self.look()

    def hurry(self) -> None:
        """Look at the file now, and say again what is wrong with it."""
        self._problem = None
        self._is_asked.set()

    async def look(self) -> None:
        """Use the keys that are in the file now."""
        try:
            # In a thread: a file on a network can take its time.
            keys = await asyncio.to_thread(self._read)
        # Not only KeyRingError: a slip of ours must not leave a retired key in use for good.
        except Exception as exc:  # noqa: BLE001  # logged by what is called
            self._complain(exc)
            return
        if keys != self._tokens.keys:
            self._tokens.use(keys)
            log.info("keys reloaded", kids=[key.kid for key in keys.keys])
        elif self._problem is not None:
            log.info("key file can be used again")
        self._problem = None

    def _read(self) -> KeyRing:
        return read_key_ring(self._path, self._algorithm, in_use=self._tokens.keys.keys)

    def _complain(self, problem: Exception) -> None:
        """Say once what is wrong, and not every second."""
        if str(problem) != self._problem:
            log.error("keys not reloaded", reason=str(problem), exc_info=not isinstance(problem, KeyRingError))
        self._problem = str(problem)
