"""The client that measures servers keeps to the rules, so that it blames them for nothing."""

import asyncio

import pytest

from benchmarks.load.client import Answer, Connection


class Line(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("header", "is_open", "written"),
    [
        pytest.param(b"", True, [b"first", b"second"], id="keep-alive"),
        pytest.param(b"Connection: close\r\n", False, [b"first"], id="close"),
    ],
)
async def test_client_asks_no_more_when_the_answer_said_close(
    header: bytes, is_open: bool, written: list[bytes]
) -> None:
    """What would be sent after the last answer is not in flight, and not lost."""
    line, connection = Line(), Connection()
    connection.connection_made(line)
    first = asyncio.create_task(connection.ask(b"first"))
    await asyncio.sleep(0)

    connection.data_received(b"HTTP/1.1 200 OK\r\n" + header + b"Content-Length: 2\r\n\r\nok")
    answer, was_open = await first, connection.is_open
    second = asyncio.create_task(connection.ask(b"second"))
    await asyncio.sleep(0)
    connection.connection_lost(None)
    await second

    assert (answer, was_open) == (Answer(200, b"ok"), is_open)
    assert line.written == written
