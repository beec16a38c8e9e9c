"""
`python -m torture.inside FOLDER ...` is `python -m tornado_ds ...` with a hand on its clock and an eye on its tasks.

The date is off by the seconds that FOLDER/date holds; the number of unfinished
tasks stands in FOLDER/tasks. The monotonic clock goes on as it should.
"""

import asyncio
import gc
import sys
import threading
import time
from pathlib import Path

LOOK_SECONDS = 0.1
COUNT_SECONDS = 2.0


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
    """Write down how many tasks there are, now and then."""
    while True:
        tasks = [each for each in gc.get_objects() if isinstance(each, asyncio.Task) and not each.done()]
        path.write_text(str(len(tasks)), encoding="ascii")
        del tasks
        time.sleep(COUNT_SECONDS)


if __name__ == "__main__":
    folder = Path(sys.argv.pop(1))
    if (folder / "date").exists():
        time.time = ShiftedTime(folder / "date")
    threading.Thread(target=count_tasks, args=[folder / "tasks"], daemon=True).start()

    from tornado_ds.__main__ import main

    main()
