"""The date of the machine set forwards and back, by seconds and by years, under a running server."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import client
from benchmarks.outcome import Outcome, Target, milliseconds
from benchmarks.programs import OurServer
from benchmarks.progress import Progress
from benchmarks.traffic import Place, settings_of
from tornado_ds.app import prepare_database
from torture.cast import Cast, end_session, make_cast, open_session
from torture.faults import SLOWEST_ANSWER
from torture.inside import LOOK_SECONDS
from torture.insider import InsideServer
from torture.plan import Plan
from torture.probe import Probe, Reply, check_question, questions

SETTLE_SECONDS = 3.0
YEAR = 365 * 86400

HOT, ENDED, LOGIN = "check of a token: hot", "check of a token: ended", "login"


@dataclass(frozen=True, slots=True)
class Step:
    """The date is *seconds* off; tokens that were good then have expired with *is_over*."""

    name: str
    seconds: int
    is_over: bool = False


STEPS = (
    Step("2 s back", -2),
    Step("10 min back", -600),
    Step("a year back", -YEAR),
    Step("10 min ahead", 600),
    Step("a year ahead", YEAR, is_over=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """What was answered while the date was off, and when it was right again."""

    step: Step
    off: Sequence[Reply]
    right: Sequence[Reply]

    def answers(self, name: str) -> str:
        """Return what a question was answered with, for people."""
        return " / ".join(_statuses(replies, name) for replies in (self.off, self.right))

    @property
    def lets_in(self) -> bool:
        """True if somebody was let in whose session is over."""
        return any(reply.is_false for reply in [*self.off, *self.right])

    @property
    def holds(self) -> bool:
        """True if who is logged in stayed so, and everybody else could log in."""
        during = [reply for reply in self.off if not (self.step.is_over and reply.question.name == HOT)]
        asked = [reply for reply in [*during, *self.right] if reply.question.name in (HOT, LOGIN)]
        return bool(asked) and all(reply.is_right for reply in asked)

    @property
    def slowest(self) -> float:
        """How long the slowest answer took, in seconds."""
        return max(reply.seconds for reply in [*self.off, *self.right])


def torment(place: Place, plan: Plan, progress: Progress) -> Outcome:
    """Set the date of one server, and ask all the time."""
    settings = settings_of(place.folder)
    asyncio.run(prepare_database(settings))
    cast = make_cast(settings)
    date = place.folder / "date"
    date.write_text("+0", encoding="ascii")
    with InsideServer(place, env={"TORNADO_DS_TRUSTED_PROXIES": "127.0.0.1"}) as server:
        stepped = client.run(_step_all(server, place, cast, date, plan, progress), pinned=False)
        sid, token = open_session(settings, "hot")
        end_session(settings, sid)
        heard = client.run(_watch(Probe([check_question("late", server, place, token, right=403)])), pinned=False)
    return _outcome(stepped, heard)


async def _step_all(
    server: OurServer, place: Place, cast: Cast, date: Path, plan: Plan, progress: Progress
) -> list[Stepped]:
    stepped = []
    for step in STEPS:
        progress.step(step.name)
        seconds = plan.clock_seconds if step.seconds == YEAR else SETTLE_SECONDS
        asked = [question for question in questions(server, place, cast) if question.name in (HOT, ENDED, LOGIN)]
        probe = Probe(asked)
        async with probe.running():
            off = await _set(date, step.seconds, probe, seconds)
            right = await _set(date, 0, probe, SETTLE_SECONDS)
        stepped.append(Stepped(step=step, off=off, right=right))
    return stepped


async def _watch(probe: Probe) -> list[Reply]:
    async with probe.running():
        await asyncio.sleep(SETTLE_SECONDS)
    return probe.replies


async def _set(date: Path, offset: int, probe: Probe, seconds: float) -> list[Reply]:
    """Return what is answered in the next *seconds* after the date has become *offset* seconds off."""
    await asyncio.to_thread(date.write_text, f"{offset:+d}", encoding="ascii")
    # The server looks at it ten times a second.
    await asyncio.sleep(2 * LOOK_SECONDS)
    probe.replies.clear()
    await asyncio.sleep(seconds)
    return list(probe.replies)


def _statuses(replies: Sequence[Reply], name: str) -> str:
    found = Counter(reply.status for reply in replies if reply.question.name == name)
    return ", ".join(f"{number} times {status}" for status, number in sorted(found.items())) or "-"


def _outcome(stepped: Sequence[Stepped], heard: Sequence[Reply]) -> Outcome:
    back, ahead = (
        [each for each in stepped if each.step.seconds < 0],
        [each for each in stepped if each.step.seconds > 0],
    )
    slowest = max(each.slowest for each in stepped)
    return Outcome(
        title="Clock steps",
        columns=["the date is, and is right again", "a live token", "a token of an ended session", "logins", "slowest"],
        rows=[
            [each.step.name, each.answers(HOT), each.answers(ENDED), each.answers(LOGIN), milliseconds(each.slowest)]
            for each in stepped
        ],
        values={each.step.name: {"holds": each.holds, "lets_in": each.lets_in} for each in stepped},
        targets=[
            Target(
                promise="clock steps back 2 s, 10 min or a year after a login: the login holds",
                measured=", ".join(f"{each.step.name}: {'holds' if each.holds else 'LOST'}" for each in back),
                is_met=all(each.holds for each in back),
            ),
            Target(
                promise="clock steps ahead 10 min or a year, and back: no ended session counts, nobody is locked out",
                measured=f"{sum(each.lets_in for each in stepped)} ended sessions came back,"
                f" {sum(not each.holds for each in ahead)} of {len(ahead)} kept somebody out",
                is_met=not any(each.lets_in for each in stepped) and all(each.holds for each in ahead),
            ),
            Target(
                promise="clock steps: nothing hangs, and ends of sessions are still heard of",
                measured=f"slowest answer {milliseconds(slowest)}, last end heard of: {heard[-1].status == 403}",
                is_met=slowest <= SLOWEST_ANSWER and heard[-1].status == 403,
            ),
        ],
        notes=[
            "One server in whose process `time.time` is off, and the monotonic clock goes on as it should. While the"
            " date is a year ahead a live token has expired, which is right; it counts again when the date does.",
        ],
    )
