"""Says what is going on: one moving line on a terminal, one line a step elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console


class Progress:
    """Where scenarios tell of their steps, inside a `with` block."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("")
        self._scenario = ""
        self._started = time.monotonic()

    def begin(self, scenario: str) -> None:
        """Name the scenario that the next steps are of."""
        self._scenario = scenario

    def step(self, text: str) -> None:
        """Say what is done now."""
        line = f"[{time.monotonic() - self._started:5.0f} s] {self._scenario}: {text}".replace(" : ", " ")
        if self._console.is_terminal:
            self._status.update(line)
        else:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._status.stop()
