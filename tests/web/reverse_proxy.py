"""A reverse proxy as people set one up, well or badly, and a server that says what it is told to."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tornado.httpclient import HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.netutil import bind_sockets
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.web import Application, RequestHandler


@dataclass
class Passed:
    """What the proxy is about to pass back; a rule changes it in place."""

    request: HTTPServerRequest
    status: int
    headers: HTTPHeaders
    body: bytes


def _as_it_is(_: object) -> None:
    pass


@dataclass(frozen=True)
class Rules:
    """What the proxy does to requests and to answers."""

    request: Callable[[HTTPServerRequest], object] = field(default=_as_it_is)
    answer: Callable[[Passed], object] = field(default=_as_it_is)


class _PassOn(RequestHandler):
    def initialize(self, backend: str, rules: Rules, client: SimpleAsyncHTTPClient) -> None:
        self._backend = backend
        self._rules = rules
        self._client = client

    async def prepare(self) -> None:
        self._rules.request(self.request)
        request = HTTPRequest(
            self._backend + self.request.uri,
            method=self.request.method,
            headers=self.request.headers,
            body=self.request.body or None,
            follow_redirects=False,
            allow_nonstandard_methods=True,
            decompress_response=False,
        )
        response = await self._client.fetch(request, raise_error=False)
        passed = Passed(self.request, response.code, response.headers, response.body)
        self._rules.answer(passed)
        self.clear()
        self.set_status(passed.status)
        for name in ("Server", "Content-Type"):
            self.clear_header(name)
        for name, value in passed.headers.get_all():
            if name not in ("Content-Length", "Transfer-Encoding", "Connection"):
                self.add_header(name, value)
        self.finish(passed.body)


@asynccontextmanager
async def reverse_proxy(backend: str, rules: Rules, sock: socket.socket | None = None) -> AsyncIterator[str]:
    """Pass on from the URL that this gives to *backend*, by *rules*."""
    sock = sock or bind_sockets(0, "127.0.0.1")[0]
    client = SimpleAsyncHTTPClient(force_instance=True)
    server = HTTPServer(Application([(".*", _PassOn, {"backend": backend, "rules": rules, "client": client})]))
    server.add_sockets([sock])
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.stop()
        await server.close_all_connections()
        client.close()


@asynccontextmanager
async def parrot(octets: bytes) -> AsyncIterator[str]:
    """Whoever connects to the URL that this gives hears *octets*, whatever it asks, and the end."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A connection with something unread would be reset.
        await reader.read(65536)
        writer.write(octets)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
