"""Asks over HTTP as deepstream and browsers do; follows no redirect."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import SplitResult, urlsplit

from tornado.httpclient import HTTPError, HTTPRequest
from tornado.httputil import HTTPHeaders, HTTPInputError, parse_response_start_line
from tornado.iostream import UnsatisfiableReadError
from tornado.simple_httpclient import HTTPTimeoutError, SimpleAsyncHTTPClient
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
        ssl_options=_context(url),
    )
    client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=_MAX_ANSWER)
    start = monotonic()
    try:
        async with _translated():
            response = await client.fetch(request, raise_error=False)
    finally:
        client.close()
    return Answer(response.code, response.headers, response.body or b"", monotonic() - start)


async def ask_stream(url: str, *, headers: Mapping[str, str]) -> Answer:
    """
    Return the head of an answer that goes on for ever, and the first octet of its body, none if it does not come.

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
        try:
            body = await asyncio.wait_for(reader.read(1), ANSWER_SECONDS / 2)
        except TimeoutError:
            body = b""
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
    request = HTTPRequest(
        url, connect_timeout=ANSWER_SECONDS, request_timeout=ANSWER_SECONDS, ssl_options=_context(url)
    )
    async with _translated(), asyncio.timeout(ANSWER_SECONDS):
        connection = await websocket_connect(request)
        connection.close()
        while await connection.read_message() is not None:
            pass


def _context(url: str) -> ssl.SSLContext | None:
    """Return what TLS needs; without TLS it would only take time, in which answers look slow."""
    return ssl.create_default_context() if urlsplit(url).scheme in ("https", "wss") else None


@asynccontextmanager
async def _connected(parts: SplitResult) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection, for `ANSWER_SECONDS` at most."""
    url = parts.geturl()
    async with asyncio.timeout(ANSWER_SECONDS):
        reader, writer = await asyncio.open_connection(parts.hostname, port_of(url), ssl=_context(url))
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError as exc:
        raise CertificateError(exc.verify_message) from exc
    except (TimeoutError, HTTPTimeoutError) as exc:
        raise ProbeError(f"no answer within {ANSWER_SECONDS:g} s") from exc
    except HTTPError as exc:
        raise ProbeError(str(exc.message) if exc.code == 599 else f"the answer is {exc.code}") from exc
    except OSError as exc:
        raise ProbeError(exc.strerror or str(exc) or type(exc).__name__) from exc
    except (HTTPInputError, UnsatisfiableReadError, EOFError, asyncio.LimitOverrunError, ValueError) as exc:
        raise ProbeError("what answers there does not speak HTTP") from exc
