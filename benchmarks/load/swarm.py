"""Thousands of real deepstream clients in a few Node processes, and what happens to their connections."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self

from benchmarks.traffic import ORIGIN
from tests.live.servers import NODE

CLIENTS_PER_PROCESS = 500

_SCRIPT = Path(__file__).with_name("swarm.mjs")


@dataclass(frozen=True, slots=True)
class Member:
    """One client to be: its name, deepstream's address, and its session's token."""

    name: str
    url: str
    token: str


@dataclass(frozen=True, slots=True)
class Event:
    """A connection came into *state* at *at* (seconds since the epoch)."""

    state: str
    at: float


class Swarm:
    """Clients that log in as soon as the `with` block begins, and hang up at its end."""

    def __init__(self, members: Sequence[Member], *, options: Mapping[str, Any] | None = None) -> None:
        self._members = members
        self._options = dict(options or {})
        self._events: dict[str, list[Event]] = {member.name: [] for member in members}
        self._processes: list[subprocess.Popen[str]] = []
        self._readers: list[Thread] = []

    def wait_until_open(self, names: Iterable[str] | None = None, *, seconds: float) -> int:
        """Return how many of the clients are connected, once all are or the time is over."""
        wanted = set(self._events if names is None else names)

        def number() -> int:
            return sum(self.state(name) == "OPEN" for name in wanted)

        return self._wait(number, len(wanted), seconds)

    def wait_until_closed(self, names: Iterable[str], *, since: float, seconds: float) -> dict[str, float]:
        """Return when the connections were closed, those after *since*, once all are or the time is over."""
        wanted = list(names)

        def closed() -> dict[str, float]:
            return {
                name: event.at
                for name in wanted
                for event in [self._first_after(name, since)]
                if event is not None and event.state != "OPEN"
            }

        self._wait(lambda: len(closed()), len(wanted), seconds)
        return closed()

    def states(self) -> Counter[str]:
        """Return how many clients are in which state."""
        return Counter(self.state(name) for name in self._events)

    def state(self, name: str) -> str:
        """Return the state that a client is in."""
        events = self._events[name]
        return events[-1].state if events else "NEW"

    def last_opened(self) -> float:
        """Return when the last client came in."""
        return max(event.at for events in self._events.values() for event in events if event.state == "OPEN")

    def __enter__(self) -> Self:
        for start in range(0, len(self._members), CLIENTS_PER_PROCESS):
            self._start(self._members[start : start + CLIENTS_PER_PROCESS])
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        for reader in self._readers:
            reader.join()
        for process in self._processes:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.stdout.close()

    def _start(self, members: Sequence[Member]) -> None:
        process = subprocess.Popen([NODE, str(_SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        clients = [
            {
                "name": member.name,
                "url": member.url,
                "headers": {"cookie": f"access_token={member.token}", "origin": ORIGIN},
            }
            for member in members
        ]
        assert process.stdin is not None
        process.stdin.write(json.dumps({"clients": clients, "options": self._options}) + "\n")
        process.stdin.flush()
        self._readers.append(Thread(target=self._read, args=[process], daemon=True))
        self._readers[-1].start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            name, state, at = json.loads(line)
            self._events[name].append(Event(state, at))

    def _first_after(self, name: str, moment: float) -> Event | None:
        return next((event for event in self._events[name] if event.at > moment), None)

    def _wait(self, number: Callable[[], int], wanted: int, seconds: float) -> int:
        deadline = time.monotonic() + seconds
        while (found := number()) < wanted and time.monotonic() < deadline:
            time.sleep(0.05)
        return found
