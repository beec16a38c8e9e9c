"""Start-up and memory: with very many users and live sessions, and with very many ended ones."""

import json
import subprocess
import time
from dataclasses import dataclass

from benchmarks.machine import memory_of, processor_time_of
from benchmarks.outcome import Outcome, Target, count, mebibytes, milliseconds
from benchmarks.people import add_people, add_sessions, end_sessions
from benchmarks.plan import Plan
from benchmarks.programs import REAL_HASHING, OurServer
from benchmarks.progress import Progress
from benchmarks.traffic import Stage
from tests.live.servers import DEEPSTREAM_CONFIG, NODE, ROOT

START_SECONDS = 1
MEMORY_MIB = 120

_GUARD = DEEPSTREAM_CONFIG / "session-guard.js"
_SCRIPT = ROOT / "benchmarks" / "load" / "guard_memory.cjs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A server that has just started."""

    start_seconds: float
    processor_seconds: float
    mebibytes: float

    def cells(self) -> list[str]:
        """Return it for people."""
        return [milliseconds(self.start_seconds), milliseconds(self.processor_seconds), mebibytes(self.mebibytes)]

    def values(self) -> list[float]:
        """Return it for scripts."""
        return [self.start_seconds, self.processor_seconds, self.mebibytes]


def measure(stage: Stage, plan: Plan, progress: Progress) -> Outcome:
    """Look at an empty server, a full one, and one that many sessions have ended on."""
    progress.step("an empty server")
    add_people(stage.folder / "empty", 1)
    empty = _start(stage, "empty")
    progress.step(f"{count(plan.users)} users and live sessions")
    names = add_people(stage.folder / "full", plan.users)
    add_sessions(stage.folder / "full", names)
    full = _start(stage, "full")
    progress.step(f"{count(plan.ended_in_memory)} ended sessions")
    grown, plugin = _end_many(stage, plan.ended_in_memory)
    after = _start(stage, "ended")
    users, ended = count(plan.users), count(plan.ended_in_memory)
    return Outcome(
        title="Start-up and memory",
        columns=["what", "ready after", "processor time", "memory"],
        rows=[
            ["auth server, empty", *empty.cells()],
            [f"auth server, {users} users, {users} live sessions", *full.cells()],
            [f"auth server, {ended} sessions ended while it ran", "", "", mebibytes(grown)],
            [f"auth server, started with {ended} ended sessions", *after.cells()],
            [f"plugin in deepstream, for {ended} ended sessions", "", "", f"+{mebibytes(plugin)}"],
        ],
        values={
            "empty": empty.values(),
            "full": full.values(),
            "ended_while_running_mib": grown,
            "ended_before_start": after.values(),
            "plugin_mib": plugin,
        },
        targets=[
            Target(
                promise="start-up: ready in under 1 s with 100 000 users and live sessions, under 120 MiB",
                measured=f"{milliseconds(full.start_seconds)}, {mebibytes(full.mebibytes)}",
                is_met=full.start_seconds < START_SECONDS and full.mebibytes < MEMORY_MIB,
            )
        ],
        notes=[
            "SQLite, one worker. Ready is when `/readyz` answers 200, from the start of the process; memory is what is"
            " resident then. The plugin's share is JavaScript heap after garbage collection.",
        ],
    )


def _start(stage: Stage, name: str) -> Size:
    server = OurServer(stage, folder=stage.folder / name, env=REAL_HASHING)
    started = time.perf_counter()
    with server:
        return Size(
            start_seconds=time.perf_counter() - started,
            processor_seconds=processor_time_of(server.pid),
            mebibytes=memory_of(server.pid),
        )


def _end_many(stage: Stage, many: int) -> tuple[float, float]:
    """Return the memory of server and plugin after *many* sessions have ended; the plugin's without deepstream."""
    folder = stage.folder / "ended"
    name = add_people(folder, 1)[0]
    add_sessions(folder, [name] * many)
    with OurServer(stage, folder=folder) as server:
        url = f"http://{server.internal}/session-events"
        command = [NODE, "--expose-gc", str(_SCRIPT), str(_GUARD), url, stage.secret, str(many)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as guard:
            assert guard.stdout is not None
            assert guard.stdout.readline() == "ready\n"
            end_sessions(folder, name)
            heap = json.loads(guard.stdout.readline())
        return memory_of(server.pid), (heap["after"] - heap["before"]) / 2**20
