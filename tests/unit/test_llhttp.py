import asyncio
from itertools import pairwise
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)

from tornado_ds.errors import FramingError
from tornado_ds.gate import ConnectionGate, Verdict
from tornado_ds.handlers.routes import InFlight, WebApplication
from tornado_ds.limits import Deadlines, Limits
from tornado_ds.llhttp.checks import Answers, Requests
from tornado_ds.llhttp.connection import Connection
from tornado_ds.llhttp.framing import ChunkedBody, Head, is_hopeless, is_unfinished, parse_head

CHECK = b"POST /check-token HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b"


class EchoGate:
    """Allows everything at once, with the body as its answer; `later` takes its time, and `slip` is too much."""

    def __init__(self) -> None:
        self.later: asyncio.Future[Verdict] | None = None

    def refusal(self, *, authorization: str | None, content_type: str | None) -> Verdict | None:
        return None

    def decide_body(self, body: bytes) -> Verdict | asyncio.Future[Verdict]:
        if body == b"slip":
            raise RuntimeError("a slip")
        if body == b"later":
            self.later = asyncio.get_running_loop().create_future()
            return self.later
        return Verdict(200, body, "application/json", "ok")


class NothingHere(HTTPMessageDelegate):
    """Answers 404 to everything, as soon as it was read."""

    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection

    def finish(self) -> None:
        self._connection.write_headers(
            ResponseStartLine("HTTP/1.1", 404, "Not Found"), HTTPHeaders({"Content-Length": "0"})
        )
        self._connection.finish()


class Unwilling(NothingHere):
    """Finds fault with every request, as Tornado does with some."""

    def headers_received(self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders) -> None:
        raise HTTPInputError("not like this")


class Slipping(NothingHere):
    """Fails where it should answer, and when it hears that nobody waits for that any more."""

    def finish(self) -> None:
        raise RuntimeError("a slip")

    def on_connection_close(self) -> None:
        raise RuntimeError("another slip")


class EmptyApplication(HTTPServerConnectionDelegate):
    """An application without a page; whoever asks deals with *delegate*."""

    def __init__(self, delegate: type[NothingHere]) -> None:
        self._delegate = delegate
        self.in_flight = InFlight()
        self.verdicts: list[Verdict] = []

    def note_verdict(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        return self._delegate(request_conn)


class Room:
    """A server for a single connection, whose clock stands still."""

    is_draining = False

    def __init__(self, delegate: type[NothingHere] = NothingHere) -> None:
        self.app = cast(WebApplication, EmptyApplication(delegate))
        self.echo = EchoGate()
        self.gate = cast(ConnectionGate, self.echo)
        self.requests = Requests(self.gate)
        self.answers = Answers(is_https=False)
        self.deadlines = Deadlines(Limits(), list)
        self.deadlines.idle, self.deadlines.body, self.deadlines.write = 10.0, 5.0, 30.0

    def remove(self, connection: Connection) -> None:
        pass

    def post(self, connection: Connection) -> None:
        asyncio.get_running_loop().call_soon(connection.flush)


class Pipe(asyncio.Transport):
    """Keeps what is written, and knows what it was told."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.written = bytearray()
        self.is_paused = False
        self.is_shut = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def write_eof(self) -> None:
        self.is_shut = True

    def close(self) -> None:
        self.is_shut = True

    def abort(self) -> None:
        self.is_shut = True

    def is_closing(self) -> bool:
        return self.is_shut

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    @property
    def bodies(self) -> list[bytes]:
        """The body of each answer, of answers whose bodies hold no status lines."""
        return [part.partition(b"\r\n\r\n")[2] for part in bytes(self.written).split(b"HTTP/1.1 ")[1:]]


def connect(room: Room | None = None) -> tuple[Connection, Pipe]:
    """A connection, and what it writes to."""
    connection, pipe = Connection(room or Room()), Pipe()
    connection.connection_made(pipe)
    return connection, pipe


async def turns(count: int = 5) -> None:
    """A few turns of the event loop, which is all that a verdict needs to become an answer."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("raw", "connection"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", id="1.1"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n", "close", id="close"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: te, close\r\n\r\n", "close", id="close-in-a-list"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", "", id="with-a-body"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", "close", id="1.0"),
        pytest.param(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "keep-alive", id="1.0-keep-alive"),
        pytest.param(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "close", id="tunnel"),
    ],
)
def test_parse_head_says_what_becomes_of_the_connection(raw: bytes, connection: str) -> None:
    """Each version has its own default, and a tunnel that is refused leaves nothing to go on with."""
    head = parse_head(raw)

    assert head.connection == connection


def test_parse_head_returns_all_of_a_head() -> None:
    """Names lose their case, values the blanks around them, and bytes are Latin-1 as in Tornado."""
    head = parse_head(b"POST /a?b HTTP/1.1\r\nHost: c\r\nX:  \t d\xff \r\nx: e\r\nTransfer-Encoding: Chunked\r\n\r\n")

    assert head == Head(
        method="POST",
        target="/a?b",
        version="HTTP/1.1",
        headers={"host": ["c"], "x": ["d\xff", "e"], "transfer-encoding": ["Chunked"]},
        length=None,
        connection="",
        expects_continue=False,
    )
    assert (head.get("x"), head.get("y")) == ("d\xff,e", None)


@given(st.binary())
@example(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nbehind")
def test_parse_head_raises_nothing_else_whatever_comes(raw: bytes) -> None:
    """Octets are a head, or a `FramingError`."""
    try:
        head = parse_head(raw)
    except FramingError:
        return
    assert head.version in {"HTTP/1.0", "HTTP/1.1"}


@pytest.mark.parametrize(
    ("start", "is_so"),
    [
        pytest.param(b"P", False, id="method"),
        pytest.param(b"\r\nPOST / HTTP/1.1\r", False, id="half-a-line-end"),
        pytest.param(b"\r", False, id="half-an-empty-line"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\n\r", False, id="nearly-all"),
        pytest.param(b"post", True, id="lower-case"),
        pytest.param(b"\x16\x03", True, id="tls"),
        pytest.param(b"\nPOST", True, id="lf-first"),
        pytest.param(b"POST / HTTP/1.1\nHost", True, id="bare-lf"),
        pytest.param(b"POST / HTTP/1.1\rHost", True, id="bare-cr"),
        pytest.param(b"P" * 16_385, True, id="too-long"),
    ],
)
def test_is_hopeless_tells_what_can_become_a_request(start: bytes, is_so: bool) -> None:
    """A client that waits for an answer to what is no request need not wait."""
    assert is_hopeless(start) == is_so


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"P", b"POST / HTTP/1.1", b"Host: a", b"x"])).map(b"".join))
def test_is_unfinished_finds_the_same_wherever_it_goes_on(start: bytes) -> None:
    """What was looked at already need not be looked at again, wherever packets begin and end."""
    is_so = [b"\r\n\r\n" not in start[:size] and not is_hopeless(start[:size]) for size in range(len(start) + 1)]

    for seen in range(len(start)):
        if is_so[seen]:
            assert is_unfinished(bytearray(start), seen=seen) == is_so[-1]


def test_is_unfinished_looks_only_at_what_came_since() -> None:
    """What is wrong with the part that was found to be in order is not even noticed."""
    assert is_unfinished(b"no request\n" + b"Host: a", seen=18)
    assert not is_unfinished(b"no request\n" + b"Host: a\n", seen=18)


@pytest.mark.gen_test
async def test_connection_is_closed_at_the_octet_that_makes_a_head_hopeless() -> None:
    """However few octets come at once, nobody waits for an answer to what is no request."""
    connection, pipe = connect()
    octets = b"POST / HTTP/1.1\r\nHost: a\n"

    were_shut = []
    for octet in octets:
        connection.data_received(bytes([octet]))
        were_shut.append(pipe.is_shut)

    assert were_shut == [False] * (len(octets) - 1) + [True]
    assert pipe.bodies == [b"bad request"]


@given(
    chunks=st.lists(st.binary(min_size=1) | st.just(b"\r\n\r\n")),
    trailer=st.sampled_from([b"", b"A: b\r\n", b"A:\r\nB: \r\n"]),
    behind=st.binary() | st.sampled_from([b"\r\n", b"\n\r\n", b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]),
    cuts=st.lists(st.integers(0, 400)),
)
def test_chunked_body_ends_where_it_ends_however_it_is_cut(
    chunks: list[bytes], trailer: bytes, behind: bytes, cuts: list[int]
) -> None:
    """No octet behind the body is taken for part of it, nor the other way round."""
    encoded = b"".join(b"%x;e=f\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailer + b"\r\n"
    octets = encoded + behind
    edges = sorted({0, len(octets), *(cut for cut in cuts if cut < len(octets))})

    body, content, taken = ChunkedBody(), b"", 0
    for start, stop in pairwise(edges):
        while taken < stop and not body.is_complete:
            part, end = body.feed(octets[start:stop], taken - start)
            content, taken = content + part, start + end

    assert (content, taken, body.is_complete) == (b"".join(chunks), len(encoded), True)


@pytest.mark.parametrize(
    ("chunk", "count", "calls"),
    [
        pytest.param(b"\r\n\r\n" * 65_536, 1, 1024, id="two-lines-end-all-the-time"),
        pytest.param(b"x", 65_536, 6, id="one-octet-a-chunk"),
    ],
)
def test_chunked_body_is_taken_in_parts_when_it_is_much_work(chunk: bytes, count: int, calls: int) -> None:
    """However much has come at once, others get their turn in between, and all of it is taken in the end."""
    octets = b"%x\r\n%b\r\n" % (len(chunk), chunk) * count + b"0\r\n\r\n"

    body, content, ends = ChunkedBody(), b"", [0]
    while not body.is_complete:
        part, end = body.feed(octets, ends[-1])
        content += part
        ends.append(end)

    assert content == chunk * count
    assert ends[-1] == len(octets)
    assert len(ends) > calls


@pytest.mark.gen_test
async def test_check_is_answered_while_a_body_is_taken_in_parts() -> None:
    """Whoever sends a body that is much work is no reason for others to wait until it is done."""
    room = Room()
    heavy, answer_to_heavy = connect(room)
    other, answer_to_other = connect(room)
    crlfs = b"\r\n\r\n" * 65_536
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

    heavy.data_received(head)
    heavy.data_received(b"%x\r\n%b\r\n0\r\n\r\n" % (len(crlfs), crlfs))
    is_paused = answer_to_heavy.is_paused
    await turns()
    other.data_received(CHECK % (2, b"{}"))
    await turns()
    written_meanwhile = bytes(answer_to_heavy.written)
    await turns(len(crlfs) // 64)

    assert (is_paused, written_meanwhile, answer_to_other.bodies) == (True, b"", [b"{}"])
    assert answer_to_heavy.written.startswith(b"HTTP/1.1 404")
    assert not answer_to_heavy.is_paused


@given(
    bodies=st.lists(st.binary(max_size=100).filter(lambda body: b"HTTP" not in body and body != b"later")),
    cuts=st.lists(st.integers(0, 1000)),
)
def test_answers_are_the_same_however_requests_are_cut(bodies: list[bytes], cuts: list[int]) -> None:
    """Each request gets its own answer, in order, wherever packets begin and end."""
    octets = b"".join(CHECK % (len(body), body) for body in bodies)
    edges = sorted({0, len(octets), *(cut for cut in cuts if cut < len(octets))})

    async def talk() -> list[bytes]:
        connection, pipe = connect()
        for start, stop in pairwise(edges):
            connection.data_received(octets[start:stop])
        await turns(len(bodies) + 5)
        return pipe.bodies

    assert asyncio.run(talk()) == bodies


@given(
    octets=st.lists(
        st.binary(max_size=20)
        | st.sampled_from(
            [
                *(b"GET ", b"POST ", b"/", b"/check-token", b" HTTP/1.1", b"\r\n", b"\r\n\r\n", b"Host: a\r\n", b"0"),
                *(b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", CHECK % (2, b"{}")),
            ]
        )
    )
)
def test_connection_answers_or_closes_whatever_comes(octets: list[bytes]) -> None:
    """No octets raise anything, and nothing is answered behind what was malformed."""

    async def talk() -> bytes:
        connection, pipe = connect()
        for part in octets:
            connection.data_received(part)
            await asyncio.sleep(0)
        return bytes(pipe.written)

    written = asyncio.run(talk())

    given_out = [part[:3] for part in written.split(b"HTTP/1.1 ")[1:]]
    assert set(given_out) <= {b"200", b"400", b"404", b"405"}
    assert b"400" not in given_out[:-1]


@pytest.mark.gen_test
async def test_reading_stops_while_a_verdict_takes_its_time() -> None:
    """What was asked behind it waits outside, and is answered in order."""
    room = Room()
    connection, pipe = connect(room)

    connection.data_received(CHECK % (5, b"later") + CHECK % (1, b"b"))
    is_paused_meanwhile, bodies_meanwhile = pipe.is_paused, pipe.bodies
    assert room.echo.later is not None
    room.echo.later.set_result(Verdict(200, b"a", "application/json", "ok"))
    await turns()

    assert (is_paused_meanwhile, bodies_meanwhile) == (True, [])
    assert (pipe.is_paused, pipe.bodies) == (False, [b"a", b"b"])


@pytest.mark.gen_test
async def test_answering_stops_while_the_client_does_not_read() -> None:
    """A full transport is not filled any further, and time runs meanwhile."""
    connection, pipe = connect()

    connection.pause_writing()
    connection.data_received(CHECK % (1, b"a"))
    bodies_meanwhile, deadline_meanwhile = pipe.bodies, connection.deadline
    connection.resume_writing()
    await turns()

    assert (bodies_meanwhile, deadline_meanwhile) == ([], 30.0)
    assert (pipe.bodies, connection.deadline) == ([b"a"], 10.0)


@pytest.mark.gen_test
async def test_gate_that_fails_is_unavailable_and_not_a_refusal() -> None:
    """A slip of ours, at once or later, is a 503 that deepstream tries again."""
    room = Room()
    connection, pipe = connect(room)

    connection.data_received(CHECK % (4, b"slip") + CHECK % (5, b"later"))
    await turns()
    assert room.echo.later is not None
    room.echo.later.set_exception(RuntimeError("a slip"))
    await turns()

    assert pipe.bodies == [b"unavailable", b"unavailable"]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("delegate", "status"),
    [
        pytest.param(Unwilling, b"HTTP/1.1 400", id="refused"),
        pytest.param(Slipping, b"", id="failed"),
    ],
)
async def test_connection_ends_when_the_application_cannot_go_on(delegate: type[NothingHere], status: bytes) -> None:
    """A request that it refuses is answered; a slip of its own is not, and goes no further than the log."""
    connection, pipe = connect(Room(delegate))

    connection.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")

    assert pipe.is_shut
    assert status == bytes(pipe.written[:12])


@pytest.mark.gen_test
async def test_nothing_is_raised_when_the_application_fails_behind_a_lost_connection() -> None:
    """Nobody is left to tell, but for whoever reads the log."""
    connection, pipe = connect(Room(Slipping))
    connection.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")

    with capture_logs() as lines:
        connection.connection_lost(None)

    assert [("error", "request failed after its connection was lost")] == [
        (line["log_level"], line["event"]) for line in lines
    ]
    assert b"" == pipe.written
