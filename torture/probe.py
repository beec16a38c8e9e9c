"""Asks a server the same few things all the time, and notes every answer."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from itertools import cycle

from benchmarks.load.client import Answer, Connection
from benchmarks.people import PASSWORD
from benchmarks.programs import OurServer
from benchmarks.traffic import Place, login_request, webhook_request
from torture.cast import Cast

# Nobody waits longer for an answer.
PATIENCE = 8.0

# What the server may say at any time about its own trouble.
OUR_TROUBLE = 503


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """
    What each of *askers* asks about every *pause* seconds, and the status of the right answer.

    Over the same connection as before, unless it is to be *fresh*.
    """

    name: str
    address: str
    request: Callable[[], bytes]
    right: int
    pause: float
    askers: int = 1
    is_fresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back; times are in seconds of the monotonic clock, status 0 is a connection that broke."""

    question: Question
    asked: float
    seconds: float
    status: int

    @property
    def answered(self) -> float:
        """When it came."""
        return self.asked + self.seconds

    @property
    def is_right(self) -> bool:
        """True if it is the answer that a healthy server gives."""
        return self.status == self.question.right

    @property
    def is_false(self) -> bool:
        """True if somebody was let in who must not be."""
        return self.status == 200 and self.question.right != 200

    @property
    def blames(self) -> bool:
        """True if the client was refused for our trouble."""
        return self.status in (401, 403, 429) and not self.is_right

    @property
    def is_broken(self) -> bool:
        """True if it is no answer at all, or one that is never given."""
        return self.status not in (200, 401, 403, 429, OUR_TROUBLE)

    @property
    def is_wrong(self) -> bool:
        """True if no trouble excuses it."""
        return self.is_false or self.blames or self.is_broken


class Probe:
    """Keeps asking *questions* while `running`."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._questions = questions
        self.replies: list[Reply] = []

    def since(self, moment: float) -> list[Reply]:
        """Return the replies to what was asked or answered after *moment*."""
        return [reply for reply in self.replies if reply.answered > moment]

    async def round(self) -> list[Reply]:
        """Return the replies to what is asked from now on, once there is one to each question."""
        began = time.monotonic()
        while True:
            replies = [reply for reply in self.since(began) if reply.asked >= began]
            if {reply.question for reply in replies} == set(self._questions):
                return replies
            await asyncio.sleep(0.02)

    async def until_well(self) -> None:
        """Return once everything is answered rightly."""
        while not all(reply.is_right for reply in await self.round()):
            pass

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask meanwhile."""
        tasks = [
            asyncio.create_task(self._keep_asking(question))
            for question in self._questions
            for _ in range(question.askers)
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_asking(self, question: Question) -> None:
        with closing(_Line(question.address)) as line:
            while True:
                asked = time.monotonic()
                answer = await line.ask(question.request())
                seconds = time.monotonic() - asked
                if question.is_fresh:
                    line.close()
                self.replies.append(Reply(question=question, asked=asked, seconds=seconds, status=answer.status))
                await asyncio.sleep(question.pause)


class _Line:
    """A connection to *address*, opened when one is needed."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._connection: Connection | None = None

    async def ask(self, request: bytes) -> Answer:
        """Return the answer, one with status 0 if none comes."""
        try:
            async with asyncio.timeout(PATIENCE):
                if self._connection is None or not self._connection.is_open:
                    self.close()
                    self._connection = await Connection.open(self._address)
                return await self._connection.ask(request)
        except (OSError, TimeoutError):
            self.close()
            return Answer(0)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def questions(server: OurServer, place: Place, cast: Cast) -> list[Question]:
    """Return all that matters: checks of four kinds, a page, and logins with right and wrong passwords."""
    checks = {"hot": (cast.hot, 200), "changed": (cast.changed, 200)}
    checks |= {"ended": (cast.ended, 403), "disabled": (cast.disabled, 403)}
    return [
        *(
            Question(
                name=f"check of a token: {name}",
                address=server.internal,
                request=_always(webhook_request(token, authorization=place.authorization)),
                right=right,
                pause=0.05,
                askers=3,
            )
            for name, (token, right) in checks.items()
        ),
        Question(
            name="page of somebody logged in",
            address=server.public,
            request=_always(_page_request(cast.hot)),
            right=200,
            pause=0.1,
        ),
        login_question(server, cast.people),
        Question(
            name="login with a wrong password",
            address=server.public,
            request=lambda: login_request(f"nobody-{random.random()}", "wrong", server.url, address=_address()),
            right=403,
            pause=0.2,
            askers=3,
        ),
    ]


def login_question(server: OurServer, people: Sequence[str]) -> Question:
    """Return the question that logs in *people* in turn, each from another address."""
    names = cycle(people)
    return Question(
        name="login",
        address=server.public,
        request=lambda: login_request(next(names), PASSWORD, server.url, address=_address()),
        right=200,
        pause=0.2,
        askers=5,
    )


def check_question(name: str, server: OurServer, place: Place, token: str, *, right: int = 200) -> Question:
    """Return the question that checks one token."""
    request = _always(webhook_request(token, authorization=place.authorization))
    return Question(name=name, address=server.internal, request=request, right=right, pause=0.02)


def _always(request: bytes) -> Callable[[], bytes]:
    return lambda: request


def _page_request(token: str) -> bytes:
    return f"GET /session HTTP/1.1\r\nHost: localhost\r\nCookie: access_token={token}\r\n\r\n".encode()


def _address() -> str:
    """Return an address that nobody has failed from."""
    return str(next(_ADDRESSES))


def _addresses() -> Iterator[str]:
    for number in cycle(range(2**24)):
        yield f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


_ADDRESSES = _addresses()
