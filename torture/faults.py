"""Lets a fault happen under a running probe, and says how the server took it."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from benchmarks.outcome import Target, count, milliseconds
from torture.probe import OUR_TROUBLE, Probe, Reply

CALM_SECONDS = 1.0
RECOVERY_SECONDS = 4.0

SLOWEST_ANSWER = 1.5
BACK_WITHIN = 2.0

COLUMNS = ["fault", "answers", "503", "false 200", "blamed", "no answer", "slowest", "back after"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that *begin* starts and *end* takes away."""

    name: str
    begin: Callable[[], Awaitable[None]]
    end: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endured:
    """How a server took a fault that was over at *healed*."""

    name: str
    replies: Sequence[Reply]
    healed: float

    @property
    def troubled(self) -> int:
        """How often the server said that it cannot answer."""
        return sum(reply.status == OUR_TROUBLE for reply in self.replies)

    @property
    def false(self) -> int:
        """How often somebody was let in who must not be."""
        return sum(reply.is_false for reply in self.replies)

    @property
    def blamed(self) -> int:
        """How often a client was refused for our trouble."""
        return sum(reply.blames for reply in self.replies)

    @property
    def broken(self) -> int:
        """How often there was no proper answer."""
        return sum(reply.is_broken for reply in self.replies)

    @property
    def slowest(self) -> float:
        """How long the slowest answer took."""
        return max((reply.seconds for reply in self.replies), default=0)

    @property
    def back_after(self) -> float:
        """How long after the end of the fault the last answer came that was not right."""
        return max([0.0, *(reply.answered - self.healed for reply in self.late)])

    @property
    def late(self) -> list[Reply]:
        """The answers after the end of the fault that were not right."""
        return [reply for reply in self.replies if reply.answered > self.healed and not reply.is_right]

    def row(self) -> list[str]:
        """Return it for people."""
        shown = [self.troubled, self.false, self.blamed, self.broken]
        times = [milliseconds(self.slowest), f"{self.back_after:.2f} s"]
        return [self.name, count(len(self.replies)), *(count(number) for number in shown), *times]

    def values(self) -> dict[str, object]:
        """Return it for scripts."""
        wrong = [reply for reply in self.replies if reply.is_wrong]
        return {
            "answers": len(self.replies),
            "503": self.troubled,
            "wrong": dict(Counter(f"{reply.question.name}: {reply.status}" for reply in wrong)),
            "slowest": self.slowest,
            "slowest_question": max(self.replies, key=lambda reply: reply.seconds).question.name,
            "back_after": self.back_after,
            "late": dict(Counter(f"{reply.question.name}: {reply.status}" for reply in self.late)),
        }


async def endure(probe: Probe, fault: Fault, *, seconds: float) -> Endured:
    """Let *fault* happen for *seconds* while *probe* is running, and watch until it must be forgotten."""
    await asyncio.sleep(CALM_SECONDS)
    began = time.monotonic()
    await fault.begin()
    await asyncio.sleep(seconds)
    await fault.end()
    healed = time.monotonic()
    await asyncio.sleep(RECOVERY_SECONDS)
    return Endured(name=fault.name, replies=probe.since(began), healed=healed)


async def endure_briefly(probe: Probe, fault: Fault) -> Endured:
    """
    Let *fault* happen until *probe* has had an answer to everything, and return once all is well again.

    Raises:
        TimeoutError: It does not get so far.
    """
    async with asyncio.timeout(60), probe.running():
        await probe.until_well()
        began = time.monotonic()
        await fault.begin()
        try:
            await probe.round()
        finally:
            await fault.end()
        healed = time.monotonic()
        await probe.until_well()
    return Endured(name=fault.name, replies=probe.since(began), healed=healed)


def fault_targets(database: str, endured: Sequence[Endured]) -> list[Target]:
    """Return what is promised for all faults of *database*."""
    false, blamed, broken = (sum(getattr(each, name) for each in endured) for name in ("false", "blamed", "broken"))
    slowest = max(each.slowest for each in endured)
    back = max(each.back_after for each in endured)
    answers = sum(len(each.replies) for each in endured)
    return [
        Target(
            promise=f"{database}, {len(endured)} faults: no false 200, nobody refused for them, always an answer",
            measured=f"{count(false)} false, {count(blamed)} refused, {count(broken)} without an answer"
            f" of {count(answers)}",
            is_met=false == blamed == broken == 0,
        ),
        Target(
            promise=f"{database}: answers in {SLOWEST_ANSWER} s",
            measured=f"slowest {milliseconds(slowest)}",
            is_met=slowest <= SLOWEST_ANSWER,
        ),
        Target(
            promise=f"{database}: all is well {BACK_WITHIN:.0f} s after the fault, without a restart",
            measured=f"at the latest {back:.2f} s after it",
            is_met=back <= BACK_WITHIN,
        ),
    ]


def blocking(function: Callable[[], object]) -> Callable[[], Awaitable[None]]:
    """Return *function* as something to await, done beside the event loop."""

    async def run() -> None:
        await asyncio.to_thread(function)

    return run
