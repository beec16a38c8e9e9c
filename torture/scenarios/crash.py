"""kill -9 in the middle of logins, log-outs, user adds and seeding: what was acknowledged is there."""

import asyncio
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.load import client
from benchmarks.outcome import Outcome, Target, count
from benchmarks.programs import OurServer
from benchmarks.progress import Progress
from benchmarks.traffic import Place, settings_of
from tests.live.servers import ROOT, wait_for
from tornado_ds.app import prepare_database
from torture.browser import Browser
from torture.cast import make_cast
from torture.plan import Plan
from torture.requests import check_request

BROWSERS = 6
LONGEST_LIFE = 0.4

# So many tokens of each kind are shown to the server that is started last.
SAMPLE = 300


@dataclass(slots=True)
class Acknowledged:
    """What clients were told is done, the sessions that somebody tried to end, and *tokens* of logins by sid."""

    users: set[str] = field(default_factory=set)
    sessions: set[str] = field(default_factory=set)
    ends: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    tokens: dict[str, str] = field(default_factory=dict)

    def take(self, output: str) -> None:
        """Note what a writer has printed; a last line that is not whole does not count."""
        kinds = {"user": self.users, "session": self.sessions, "end": self.ends}
        for line in output.splitlines(keepends=True):
            if line.endswith("\n"):
                kind, _, name = line.strip().partition(" ")
                kinds[kind].add(name)


def torment(place: Place, plan: Plan, progress: Progress) -> Outcome:
    """Kill server and writer together, again and again, each time after another moment of work."""
    settings = settings_of(place.folder)
    asyncio.run(prepare_database(settings))
    people = make_cast(settings).people
    acknowledged, broken = Acknowledged(), 0
    for number in range(plan.kills):
        if number % 10 == 0:
            progress.step(f"kill {number + 1} of {plan.kills}")
        _one_round(place, people, acknowledged, number)
        broken += not is_intact(settings.sqlite_path)
    lost = lost_of(settings.sqlite_path, acknowledged)
    progress.step("a last server is asked for the tokens")
    with OurServer(place) as server:
        wrong = client.run(_wrong_answers(server, place, acknowledged), pinned=False)
    return _outcome(plan, acknowledged, lost, wrong, broken)


def _one_round(place: Place, people: Sequence[str], acknowledged: Acknowledged, number: int) -> None:
    life = LONGEST_LIFE * random.Random(number).random()
    server = OurServer(place, env={"TORNADO_DS_TRUSTED_PROXIES": "127.0.0.1"})
    output = place.folder / "writer.out"
    writer = start_writer(place, f"added-{number}", output)

    def kill() -> None:
        server.kill()
        writer.kill()

    try:
        server.start()
        client.run(_work(server, people, acknowledged, output, life=life, kill=kill), pinned=False)
    finally:
        kill()
        writer.wait()
    acknowledged.take(output.read_text(encoding="utf-8"))


def start_writer(place: Place, name: str, output: Path) -> subprocess.Popen[bytes]:
    """Start the program that writes users called *name* and so on, and what is done to *output*."""
    with output.open("wb") as file:
        command = [sys.executable, "-m", "torture.writer", str(place.folder), name]
        return subprocess.Popen(command, cwd=ROOT, stdout=file)


async def _work(
    server: OurServer,
    people: Sequence[str],
    acknowledged: Acknowledged,
    output: Path,
    *,
    life: float,
    kill: Callable[[], None],
) -> None:
    """Log in and out while the writer writes, and kill both *life* seconds after both have begun."""
    has_begun = asyncio.Event()
    tasks = [
        asyncio.create_task(_browse(server, people[number], acknowledged, has_begun, address=f"10.0.0.{number}"))
        for number in range(BROWSERS)
    ]
    async with asyncio.timeout(20):
        await has_begun.wait()
        await asyncio.to_thread(wait_for, lambda: output.stat().st_size)
    await asyncio.sleep(life)
    kill()
    await asyncio.gather(*tasks)


async def _browse(
    server: OurServer, name: str, acknowledged: Acknowledged, has_begun: asyncio.Event, *, address: str
) -> None:
    """Log in and out, over and over, every other time without the log-out."""
    with suppress(OSError, TimeoutError):
        browser = await Browser.open(server.public)
        assert isinstance(browser, Browser)
        stays = False
        while browser.is_open:
            if (await browser.log_in(name, server, address=address)).status == 200:
                has_begun.set()
                sid = browser.sid
                acknowledged.sessions.add(sid)
                acknowledged.tokens[sid] = browser.token
                if not stays:
                    acknowledged.doubtful.add(sid)
                    if (await browser.log_out(server)).status == 204:
                        acknowledged.ends.add(sid)
                stays = not stays


def is_intact(path: Path) -> bool:
    """Return True if SQLite finds nothing wrong with its file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def lost_of(path: Path, acknowledged: Acknowledged) -> dict[str, list[str]]:
    """Return some of what was acknowledged and is not in the database, by what it is."""
    queries = {
        "users": ("SELECT username FROM users", acknowledged.users),
        "sessions": ("SELECT sid FROM sessions", acknowledged.sessions),
        "ends": ("SELECT sid FROM sessions WHERE ended_at IS NOT NULL", acknowledged.ends),
        "events of ends": ("SELECT sid FROM session_events WHERE kind = 'session.ended'", acknowledged.ends),
    }
    with closing(sqlite3.connect(path)) as connection:
        found = {name: {row[0] for row in connection.execute(query)} for name, (query, _) in queries.items()}
    return {name: sorted(wanted - found[name])[:20] for name, (_, wanted) in queries.items()}


async def _wrong_answers(server: OurServer, place: Place, acknowledged: Acknowledged) -> int:
    """Return how many tokens of live and ended sessions a new server takes for something else."""
    live = [token for sid, token in acknowledged.tokens.items() if sid not in acknowledged.doubtful]
    ended = [acknowledged.tokens[sid] for sid in acknowledged.ends if sid in acknowledged.tokens]
    connection = await Browser.open(server.internal)
    wrong = 0
    for tokens, right in ((live, 200), (ended, 403)):
        for token in random.sample(tokens, min(SAMPLE, len(tokens))):
            answer = await connection.ask(check_request({"connectionData": {}, "authData": {"token": token}}, place))
            wrong += answer.status != right
    connection.close()
    return wrong


def _outcome(plan: Plan, acknowledged: Acknowledged, lost: dict[str, list[str]], wrong: int, broken: int) -> Outcome:
    numbers = {
        "users added and seeded": (acknowledged.users, lost["users"]),
        "logins and sessions opened": (acknowledged.sessions, lost["sessions"]),
        "sessions ended": (acknowledged.ends, lost["ends"] + lost["events of ends"]),
    }
    total_lost = sum(len(gone) for _, gone in numbers.values())
    return Outcome(
        title="Killed in the middle of writing",
        columns=["what", "acknowledged", "lost"],
        rows=[[what, count(len(done)), count(len(gone))] for what, (done, gone) in numbers.items()],
        values={"kills": plan.kills, "lost": lost, "wrong_answers": wrong, "damaged": broken},
        targets=[
            Target(
                promise="kill -9 during writes, 200 times: no acknowledged login, user or end of session lost",
                measured=f"{plan.kills} kills, {total_lost} of {count(sum(len(done) for done, _ in numbers.values()))}"
                f" lost, {broken} databases damaged, {wrong} wrong answers of the next server",
                is_met=total_lost == broken == wrong == 0,
            )
        ],
        notes=[
            f"Each time a server with {BROWSERS} browsers that log in and out, and beside it a program that adds and"
            " seeds users and opens and ends sessions, all on one SQLite file, get SIGKILL. Done is what was answered,"
            " or printed. After each kill the database is checked as a whole.",
        ],
    )
