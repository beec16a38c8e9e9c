"""How soon live connections on two deepstream nodes close when their session ends."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.load.swarm import Member, Swarm
from benchmarks.machine import MissingError
from benchmarks.outcome import Outcome, Target, count, milliseconds, percentile
from benchmarks.people import add_people, open_sessions
from benchmarks.plan import Plan
from benchmarks.programs import OurServer
from benchmarks.progress import Progress
from benchmarks.traffic import Stage
from tests.live.servers import Deepstream
from tornado_ds.sessions import OpenSession

NODES = ("a", "b")

PATIENCE = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """How long sockets took to close after whatever ended their session had returned, in seconds."""

    seconds: Sequence[float]
    still_open: int


def measure(stage: Stage, plan: Plan, progress: Progress) -> Outcome:
    """End sessions one by one, by the command and by a click, and then all at once."""
    folder = stage.folder / "live"
    sizes = plan.ended_by_command, plan.ended_one_by_one, plan.ended_one_by_one
    names = add_people(folder, sum(sizes) + plan.ended_at_once)
    opened = open_sessions(folder, names)
    first, second, third, rest = _split(opened, *sizes)
    server, other = (OurServer(stage, folder=folder) for _ in range(2))
    nodes = {name: _node(stage, server, name) for name in NODES}
    try:
        server.start()
        other.start()
        for node in nodes.values():
            node.start()
        with Swarm(_members(first + second + third, nodes, NODES)) as swarm:
            _wait(swarm)
            progress.step(f"{len(first)} sessions ended by the command")
            by_command = _one_by_one(swarm, first, lambda each: _end_by_command(server, each))
            progress.step(f"{len(second)} sessions ended by a click")
            by_click = _one_by_one(swarm, second, lambda each: _end_by_click(server, each))
            progress.step(f"{len(third)} sessions ended by a click on another auth server")
            by_other = _one_by_one(swarm, third, lambda each: _end_by_click(other, each))
        members = [_members([each], nodes, [NODES[number % 2]])[0] for number, each in enumerate(rest)]
        with Swarm(members) as swarm:
            _wait(swarm)
            progress.step(f"{len(rest)} sessions of as many users ended at once")
            at_once = _all_at_once(swarm, [member.name for member in members], server)
    finally:
        for node in nodes.values():
            node.kill()
        other.kill()
        server.kill()
    return _outcome(by_command, by_click, by_other, at_once)


def _outcome(by_command: Closing, by_click: Closing, by_other: Closing, at_once: Closing) -> Outcome:
    found = {"command": by_command, "click": by_click, "click_elsewhere": by_other, "at_once": at_once}
    singly = [seconds for closing in (by_command, by_click, by_other) for seconds in closing.seconds]
    still_open = sum(closing.still_open for closing in found.values())
    return Outcome(
        title="A session ends: its live connections close",
        columns=["what ended", "sessions", "median", "99 %", "last", "left open"],
        rows=[
            _row("one session each, `sessions end SID`", by_command),
            _row("one session each, a click on Log out", by_click),
            _row("one session each, a click on Log out, at the other auth server", by_other),
            _row("all sessions, `sessions end --everybody`", at_once),
        ],
        values={
            name: {"seconds": list(closing.seconds), "still_open": closing.still_open}
            for name, closing in found.items()
        },
        targets=[
            Target(
                promise="live: sockets on two nodes closed within 1 s of the end of their session (99 %)",
                measured=f"99 % within {milliseconds(percentile(singly, 99))}, {still_open} left open",
                is_met=percentile(singly, 99) < 1 and still_open == 0,
            )
        ],
        notes=[
            "Two deepstream nodes, whose session guards follow one of two auth servers; nothing is pinned to a core."
            " Timed from the return of the command, or of the log-out request, to the moment when the real client sees"
            " its socket close; 0 if that was before the return.",
            "A session that ends alone has a socket on both nodes, and the later one counts. Of those that end"
            " together each has one, and half of them are on each node.",
        ],
    )


def _node(stage: Stage, server: OurServer, name: str) -> Deepstream:
    folder = stage.folder / f"live-{name}"
    folder.mkdir()
    return Deepstream(folder, secret=stage.secret, internal=server.internal)


def _members(opened: Iterable[OpenSession], nodes: dict[str, Deepstream], on: Sequence[str]) -> list[Member]:
    return [Member(f"{each.session.sid} {name}", nodes[name].url, each.token) for each in opened for name in on]


def _wait(swarm: Swarm) -> None:
    if swarm.wait_until_open(seconds=PATIENCE + 30) < sum(swarm.states().values()):
        raise MissingError(f"not all clients get into deepstream: {dict(swarm.states())}")


def _end_by_command(server: OurServer, opened: OpenSession) -> None:
    server.cli("sessions", "end", opened.session.sid)


def _end_by_click(server: OurServer, opened: OpenSession) -> None:
    server.log_out(f"access_token={opened.token}")


def _one_by_one(swarm: Swarm, opened: Sequence[OpenSession], end: Callable[[OpenSession], None]) -> Closing:
    seconds, still_open = [], 0
    for each in opened:
        names = [f"{each.session.sid} {node}" for node in NODES]
        started = time.time()
        end(each)
        returned = time.time()
        closed = swarm.wait_until_closed(names, since=started, seconds=PATIENCE)
        still_open += len(names) - len(closed)
        seconds.append(max(0.0, max(closed.values(), default=returned + PATIENCE) - returned))
    return Closing(seconds=seconds, still_open=still_open)


def _all_at_once(swarm: Swarm, names: Sequence[str], server: OurServer) -> Closing:
    started = time.time()
    server.cli("sessions", "end", "--everybody")
    returned = time.time()
    closed = swarm.wait_until_closed(names, since=started, seconds=PATIENCE)
    return Closing(seconds=[max(0.0, at - returned) for at in closed.values()], still_open=len(names) - len(closed))


def _row(what: str, closing: Closing) -> list[str]:
    shown = [percentile(closing.seconds, 50), percentile(closing.seconds, 99), max(closing.seconds)]
    return [what, count(len(closing.seconds)), *(milliseconds(s) for s in shown), count(closing.still_open)]


def _split(opened: Sequence[OpenSession], *sizes: int) -> list[list[OpenSession]]:
    parts, start = [], 0
    for size in sizes:
        parts.append(list(opened[start : start + size]))
        start += size
    return [*parts, list(opened[start:])]
