"""A server in whose process we have a hand on the clock and an eye on the tasks."""

import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.programs import OurServer
from benchmarks.traffic import Place
from tests.live.servers import wait_for


class InsideServer(OurServer):
    """tornado_ds as `torture.inside` runs it; its date follows `date` in the place's folder, if that is there."""

    def __init__(self, place: Place, *, env: Mapping[str, str] | None = None) -> None:
        super().__init__(place, env=env)
        self._command = [sys.executable, "-m", "torture.inside", str(place.folder)]
        self._tasks: Path = place.folder / "tasks"

    @property
    def tasks(self) -> int:
        """How many tasks of its event loop are not finished."""
        return int(self._tasks.read_text(encoding="ascii") or 0)

    def count_tasks(self) -> int:
        """Return how many they are from now on; it takes until they are counted next."""
        self._tasks.unlink(missing_ok=True)
        wait_for(lambda: self._tasks.exists() and self._tasks.stat().st_size)
        return self.tasks
