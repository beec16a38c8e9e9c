"""
The limit: answers every request with the same bytes, on the loop and the parser that tornado_ds uses.

It parses HTTP and gathers the body, and nothing else, so no server in Python can be faster.
PORT comes from the environment.
"""

import asyncio
import os

import uvloop
from httptools import HttpRequestParser

BODY = (
    b'{"id":"user-0000001","username":"user-0000001",'
    b'"clientData":{"name":"Somebody With A Name","colour":"green",'
    b'"username":"user-0000001","expiresAt":1893456000000},'
    b'"serverData":{"roles":["editor","author"],"tenant":"north","sid":"00000000000000000000000000000001",'
    b'"version":1,"expiresAt":1893456000000}}'
)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Responder(asyncio.Protocol):
    """One connection; the methods that begin with `on_` are the parser's callbacks."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._parser = HttpRequestParser(self)
        self._body: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        b"".join(self._body)
        self._body.clear()
        self._transport.write(ANSWER)


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(
        Responder, "127.0.0.1", int(os.environ["PORT"]), backlog=4096
    )
    await server.serve_forever()


uvloop.run(main())
