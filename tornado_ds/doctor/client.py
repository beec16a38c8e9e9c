"""Asks over HTTP as deepstream and browsers do; follows no redirect."""

import asyncio
import ssl
from asyncio import LimitOverrunError
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from time import monotonic
from typing import Any
from urllib.parse import SplitResult, urlsplit

from tornado.httpclient import HTTPError, HTTPRequest
from tornado.httputil import HTTPHeaders, HTTPInputError, parse_response_start_line
from tornado.iostream import UnsatisfiableReadError
from tornado.simple_httpclient import HTTPStreamClosedError, HTTPTimeoutError, SimpleAsyncHTTPClient
from tornado.websocket import websocket_connect

from tornado_ds.doctor.targets import port_of
from tornado_ds.errors import CertificateError, ProbeError

# deepstream gives up after so long, and takes the login for a failed one.
ANSWER_SECONDS = 2.0

_MAX_ANSWER = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, after so many *seconds*."""

    status: int
    headers: HTTPHeaders
    body: bytes
    seconds: float

    @property
    def is_page(self) -> bool:
        """True for what is meant to be looked at."""
        return "html" in self.headers.get("Content-Type", "").lower() or self.body.lstrip()[:1] == b"<"

    @property
    def is_redirect(self) -> bool:
        return self.status in (301, 302, 303, 307, 308)


async def ask(
    url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> Answer:
    """
    Return the answer to one request.

    Raises:
        ProbeError: There is none within `ANSWER_SECONDS`.
    """
    request = HTTPRequest(
        url,
        method=method,
        headers=HTTPHeaders(headers or {}),
        body=body,
        follow_redirects=False,
        decompress_response=False,
        connect_timeout=ANSWER_SECONDS,
        request_timeout=ANSWER_SECONDS,
        ssl_options=trusted() if url.startswith("https:") else None,
    )
    client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=_MAX_ANSWER)
    start = monotonic()
    try:
        async with _translated():
            response = await client.fetch(request, raise_error=False)
    finally:
        client.close()
    return Answer(response.code, response.headers, response.body or b"", monotonic() - start)


async def ask_all(*requests: Awaitable[Answer]) -> list[Answer]:
    """
    Return the answers to all *requests*, which are on their way at the same time.

    Raises:
        ProbeError: One of them has no answer; all are over by then.
    """
    answers = []
    for result in await asyncio.gather(*requests, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        answers.append(result)
    return answers


async def ask_stream(url: str, *, headers: Mapping[str, str]) -> Answer:
    """
    Return the head of an answer, and of an endless one the first octet, none if that does not come at once.

    Raises:
        ProbeError: There is no head within `ANSWER_SECONDS`.
    """
    parts = urlsplit(url)
    head = [f"GET {parts.path or '/'} HTTP/1.1", f"Host: {parts.netloc}", *(f"{k}: {v}" for k, v in headers.items())]
    start = monotonic()
    async with _translated(), _connected(parts) as (reader, writer):
        writer.write("\r\n".join([*head, "", ""]).encode("ascii"))
        status_line, _, rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").partition("\r\n")
        status, fields = parse_response_start_line(status_line).code, HTTPHeaders.parse(rest)
        body = b""
        if status == 200:
            with suppress(TimeoutError):
                body = await asyncio.wait_for(reader.read(1), ANSWER_SECONDS / 2)
    return Answer(status, fields, body, monotonic() - start)


async def ask_certificate(url: str) -> Mapping[str, Any]:
    """
    Return the certificate of the https server at *url*, as `SSLSocket.getpeercert` has it.

    Raises:
        CertificateError: Nobody should trust that certificate.
        ProbeError: The server does not answer.
    """
    async with _translated(), _connected(urlsplit(url)) as (_, writer):
        certificate: Mapping[str, Any] = writer.get_extra_info("peercert")
    return certificate


async def ask_websocket(url: str) -> None:
    """
    Return if there is a WebSocket server at *url*.

    Raises:
        ProbeError: There is not.
    """
    options = trusted() if url.startswith("wss:") else None
    request = HTTPRequest(url, connect_timeout=ANSWER_SECONDS, request_timeout=ANSWER_SECONDS, ssl_options=options)
    async with _translated(), asyncio.timeout(ANSWER_SECONDS):
        connection = await websocket_connect(request)
        connection.close()
        while await connection.read_message() is not None:
            pass


@cache
def trusted() -> ssl.SSLContext:
    """What is trusted here; to read it takes longer than most answers do."""
    return ssl.create_default_context()


@asynccontextmanager
async def _connected(parts: SplitResult) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection, for `ANSWER_SECONDS` at most."""
    context = trusted() if parts.scheme == "https" else None
    async with asyncio.timeout(ANSWER_SECONDS):
        reader, writer = await asyncio.open_connection(parts.hostname, port_of(parts.geturl()), ssl=context)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError as exc:
        raise CertificateError(exc.verify_message) from exc
    except (TimeoutError, HTTPTimeoutError) as exc:
        raise ProbeError(f"no answer within {ANSWER_SECONDS:g} s") from exc
    except (
        HTTPStreamClosedError,
        HTTPInputError,
        UnsatisfiableReadError,
        EOFError,
        LimitOverrunError,
        ValueError,
    ) as exc:
        raise ProbeError("what answers there does not speak HTTP") from exc
    except HTTPError as exc:
        raise ProbeError(f"the answer is {exc.code}") from exc
    except OSError as exc:
        raise ProbeError(exc.strerror or str(exc) or type(exc).__name__) from exc
