"""Hundreds of connections that send or read so slowly that they never come to an end."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from benchmarks.load import client
from benchmarks.outcome import Outcome, Target, count, milliseconds, percentile
from benchmarks.programs import OurServer
from benchmarks.progress import Progress
from benchmarks.traffic import Place, settings_of, webhook_request
from tornado_ds.app import prepare_database
from torture.cast import Cast, make_cast
from torture.faults import SLOWEST_ANSWER
from torture.plan import Plan
from torture.probe import Probe, Question, Reply, questions

# Between two octets of those that are slow to write.
PAUSE_SECONDS = 2.0

# The first octet of TCP_INFO, as tcp_states.h of Linux has it.
_ESTABLISHED = 1

# The crowd gathers at this rate, so that it is no flood.
ARRIVALS_A_SECOND = 200


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to be slow: what is sent first, and what after that; with None nothing more, and nothing is read."""

    name: str
    first: Callable[[str, Place, str], bytes]
    then: bytes | None


KINDS = (
    Kind("headers", lambda listener, place, token: b"POST /check-token HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", b"a"),
    Kind("bodies", lambda listener, place, token: _head(place, 60_000), b" "),
    Kind("reading", lambda listener, place, token: _ask_for_much(listener, place, token), None),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """How a listener did under a crowd of *connections*, at the least, of which it ended some."""

    listener: str
    kind: str
    connections: int
    replies: list[Reply]

    @property
    def failed(self) -> int:
        """How many answers were not right."""
        return sum(not reply.is_right for reply in self.replies)

    def values(self) -> dict[str, object]:
        """Return it for scripts."""
        wrong = Counter(f"{reply.question.name}: {reply.status}" for reply in self.replies if not reply.is_right)
        return {"wrong": dict(wrong), "slowest": max(self.times)}

    @property
    def times(self) -> list[float]:
        """How long the answers took, in seconds."""
        return [reply.seconds for reply in self.replies]


def torment(place: Place, plan: Plan, progress: Progress) -> Outcome:
    """Hold the connections of each kind against each listener, and ask both meanwhile."""
    settings = settings_of(place.folder)
    asyncio.run(prepare_database(settings))
    cast = make_cast(settings)
    held = []
    with OurServer(place, env={"TORNADO_DS_TRUSTED_PROXIES": "127.0.0.1"}) as server:
        progress.step("nobody is slow")
        nobody = Crowd(server.public, KINDS[0], b"", size=0)
        calm = client.run(_hold(nobody, "either", server, place, cast, plan), pinned=False)
        for listener, address in (("internal", server.internal), ("public", server.public)):
            for kind in KINDS:
                progress.step(f"{plan.slow_connections} connections with slow {kind.name} at the {listener} listener")
                crowd = Crowd(address, kind, kind.first(listener, place, cast.hot), size=plan.slow_connections)
                held.append(client.run(_hold(crowd, listener, server, place, cast, plan), pinned=False))
    return _outcome(plan, calm, held)


class Crowd:
    """So many slow connections to *address* while the `async with` lasts; who is hung up on comes back."""

    def __init__(self, address: str, kind: Kind, first: bytes, *, size: int) -> None:
        host, _, port = address.rpartition(":")
        self.kind = kind
        self.size = size
        self.connected = 0
        self._target = host, int(port)
        self._first = first

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._keep_on(number / ARRIVALS_A_SECOND)) for number in range(self.size)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def gathered(self) -> None:
        """
        Return once nearly all of them are connected.

        Raises:
            TimeoutError: They are not.
        """
        async with asyncio.timeout(30):
            while self.connected < 0.99 * self.size:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def _keep_on(self, delay: float) -> None:
        await asyncio.sleep(delay)
        while True:
            with suppress(OSError):
                await self._be_slow()

    async def _be_slow(self) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            # Little of an answer is taken before it is read.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, self._target)
            await loop.sock_sendall(sock, self._first)
            self.connected += 1
            try:
                await self._dawdle(sock)
            finally:
                self.connected -= 1

    async def _dawdle(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            if self.kind.then is not None:
                await loop.sock_sendall(sock, self.kind.then)
            elif sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED:
                return


async def _hold(crowd: Crowd, listener: str, server: OurServer, place: Place, cast: Cast, plan: Plan) -> Held:
    probe = Probe(old_and_new(questions(server, place, cast)))
    async with crowd:
        await crowd.gathered()
        least = crowd.connected
        async with probe.running():
            until = time.monotonic() + plan.slow_seconds
            while time.monotonic() < until:
                await asyncio.sleep(0.1)
                least = min(least, crowd.connected)
    return Held(listener=listener, kind=crowd.kind.name, connections=least, replies=probe.replies)


def old_and_new(asked: list[Question]) -> list[Question]:
    """Return what is *asked* over connections that last, also over new ones."""
    return [*asked, *(replace(question, is_fresh=True, askers=1) for question in asked)]


def _ask_for_much(listener: str, place: Place, token: str) -> bytes:
    """Return what makes either listener answer more than the system takes from it for a client that does not read."""
    if listener == "internal":
        return webhook_request(token, authorization=place.authorization) * 60
    return b"GET /static/deepstream-client.js HTTP/1.1\r\nHost: localhost\r\n\r\n"


def _head(place: Place, length: int) -> bytes:
    lines = ["POST /check-token HTTP/1.1", "Host: localhost", f"Authorization: {place.authorization}"]
    return "\r\n".join([*lines, "Content-Type: application/json", f"Content-Length: {length}", "", ""]).encode()


def _outcome(plan: Plan, calm: Held, held: list[Held]) -> Outcome:
    failed = sum(each.failed for each in held)
    slowest = max(max(each.times) for each in held)
    answers = sum(len(each.replies) for each in held)
    return Outcome(
        title="Slow connections",
        columns=["listener", "slow", "held, at least", "answers", "not right", "99 %", "slowest"],
        rows=[
            [
                each.listener,
                each.kind if each is not calm else "nobody",
                count(each.connections),
                count(len(each.replies)),
                count(each.failed),
                milliseconds(percentile(each.times, 99)),
                milliseconds(max(each.times)),
            ]
            for each in [calm, *held]
        ],
        values={f"{each.listener} {each.kind}": each.values() for each in held},
        targets=[
            Target(
                promise="900 slow connections (headers, bodies, reading) at each listener: available all the time",
                measured=f"{count(plan.slow_connections)} of each kind: {failed} of {count(answers)} answers not right,"
                f" slowest {milliseconds(slowest)}",
                is_met=failed == 0 and slowest <= SLOWEST_ANSWER,
            )
        ],
        notes=[
            f"Held for {plan.slow_seconds} s each; whoever the server hangs up on, after 5 s for a body and 10 s for a"
            " head, comes back at once. Those who are slow to read ask for more than the system takes from the server,"
            " and read nothing. Asked meanwhile is all that is asked under faults, at both listeners, over old and over"
            " new connections.",
        ],
    )
