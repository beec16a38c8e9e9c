"""
`python -m torture.inside FOLDER ...` is `python -m tornado_ds ...` with a hand on its clock and an eye on its tasks.

The date is off by the seconds that FOLDER/date holds; the number of unfinished
tasks stands in FOLDER/tasks. The monotonic clock goes on as it should.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")

LOOK_SECONDS = 0.1
COUNT_SECONDS = 0.5


class ShiftedTime:
    """The time of the machine and what the file *path* says on top."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._time = time.time
        self._looked_at = -LOOK_SECONDS
        self._offset = 0.0

    def __call__(self) -> float:
        now = time.monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._offset = float(self._path.read_text(encoding="ascii") or 0)
        return self._time() + self._offset


def count_tasks(path: Path) -> None:
    """Write down how many tasks the running loop has, now and then."""
    path.write_text(str(len(asyncio.all_tasks())), encoding="ascii")
    asyncio.get_running_loop().call_later(COUNT_SECONDS, count_tasks, path)


def counting(run: Callable[[Coroutine[Any, Any, T]], T], path: Path) -> Callable[[Coroutine[Any, Any, T]], T]:
    """Return *run* with an eye on the tasks of what it runs."""

    async def count_and(main: Coroutine[Any, Any, T]) -> T:
        count_tasks(path)
        return await main

    return lambda main: run(count_and(main))


if __name__ == "__main__":
    folder = Path(sys.argv.pop(1))
    if (folder / "date").exists():
        time.time = ShiftedTime(folder / "date")
    uvloop.run = counting(uvloop.run, folder / "tasks")  # type: ignore[assignment]

    from tornado_ds.__main__ import main

    main()
