"""A client that sends octets as they are, and reads what a server makes of them."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType


@dataclass(frozen=True)
class Answer:
    """One answer, its headers by name in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """One connection to a port of 127.0.0.1, or to a unix socket, used as a context manager."""

    def __init__(self, address: int | Path, *, tls: ssl.SSLContext | None = None) -> None:
        self._address = address
        self._tls = tls

    async def __aenter__(self) -> "Wire":
        if isinstance(self._address, Path):
            self.reader, self.writer = await asyncio.open_unix_connection(self._address)
        else:
            # The name that is in the tests' certificates; addresses are never looked up.
            name = "localhost" if self._tls else None
            self.reader, self.writer = await asyncio.open_connection(
                "127.0.0.1", self._address, ssl=self._tls, server_hostname=name
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.writer.transport.abort()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)

    def send(self, data: bytes) -> None:
        """Write *data* without waiting."""
        self.writer.write(data)

    async def answer(self, *, to: str = "GET") -> Answer:
        """Read one answer to a request with the method *to*; an interim one is an answer too."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head[:-4].split("\r\n")
        status = int(status_line.split(" ")[1])
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        if to == "HEAD" or status in (100, 204, 304):
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, b"".join([chunk async for chunk in self._chunks()]))
        if "content-length" in headers:
            return Answer(status, headers, await self.reader.readexactly(int(headers["content-length"])))
        return Answer(status, headers, await self.reader.read())

    async def chunk(self) -> bytes:
        """Read one chunk of a body; the last one is empty."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def rest(self) -> bytes:
        """Read until the server closes the connection; it may do so rudely."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    async def _chunks(self) -> AsyncIterator[bytes]:
        while chunk := await self.chunk():
            yield chunk


def post(path: str, body: bytes, *headers: str, version: str = "1.1") -> bytes:
    """A whole POST request, with Content-Length."""
    lines = [f"POST {path} HTTP/{version}", "Host: localhost", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def get(path: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    """A whole request without a body."""
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: localhost", *headers, "", ""]).encode("latin-1")
