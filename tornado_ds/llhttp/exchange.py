"""One request and its answer, as Tornado's application sees them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog
from tornado.concurrent import Future
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPOutputError,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)

from tornado_ds.errors import FramingError
from tornado_ds.llhttp.framing import ChunkedBody, Head

log = structlog.get_logger("llhttp")

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LINE_END = re.compile(r"[\r\n]")


class Wire(Protocol):
    """The connection that an exchange goes over."""

    @property
    def is_draining(self) -> bool:
        """True if no further request is wanted."""

    def send(self, data: bytes) -> "Future[None]":
        """Write *data*; done once there is room for more."""

    def finished(self, exchange: "Exchange") -> None:
        """Go on, after the answer."""

    def abort(self) -> None:
        """Close at once, because what was written is wrong."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end; Tornado calls it the context of a connection."""

    remote_ip: str
    protocol: str = "http"


class Exchange(HTTPConnection):
    """
    Hands one request on to *app*, and writes its answer.

    Handlers that stream the body of a request (`stream_request_body`) are not
    served here.
    """

    def __init__(self, wire: Wire, head: Head, peer: Peer) -> None:
        self.context = peer
        self.is_read = False
        self.has_begun = False
        self.must_close = head.connection == "close"
        self._wire = wire
        self._head = head
        # For the log, which gets to see no query.
        self._path = head.target.partition("?")[0]
        self._unread = head.length
        self._chunks = ChunkedBody() if head.length is None else None
        self._delegate = HTTPMessageDelegate()
        self._close_callback: Callable[[], None] | None = None
        # What is still to be written of the declared length.
        self._unwritten: int | None = None
        self._is_chunking = False
        self._is_answered = False

    # The request

    def open(self, app: HTTPServerConnectionDelegate) -> None:
        """
        Tell *app* of the request.

        Raises:
            FramingError: Tornado finds fault with it.
        """
        head = self._head
        self._delegate = app.start_request(self._wire, self)
        start_line = RequestStartLine(head.method, head.target, head.version)
        headers = HTTPHeaders()
        try:
            for name, values in head.headers.items():
                for value in values:
                    headers.add(name, value)
            waiting = self._delegate.headers_received(start_line, headers)
        except HTTPInputError as exc:
            raise FramingError(str(exc)) from exc
        if waiting is not None:
            raise TypeError(f"{self._path}: the body of a request cannot be streamed on this listener")
        if self._unread == 0:
            self._finish_request()
        elif head.expects_continue and not self._is_answered:
            self._wire.send(_CONTINUE)

    def take(self, data: bytes, start: int) -> int:
        """
        Take what belongs to the body from *data* at *start* on; return where that ends.

        Raises:
            FramingError: It is no proper body.
        """
        if self._chunks is not None:
            content, stop = self._chunks.feed(data, start)
            is_last = self._chunks.is_complete
        else:
            assert self._unread is not None
            stop = min(len(data), start + self._unread)
            content = data[start:stop]
            self._unread -= len(content)
            is_last = not self._unread
        if content and not self._is_answered:
            self._delegate.data_received(content)
        if is_last:
            self._finish_request()
        return stop

    def lose(self) -> None:
        """Tell the application that nobody waits for the answer any more."""
        callback, self._close_callback = self._close_callback, None
        try:
            if not self.is_read:
                self._delegate.on_connection_close()
            elif callback is not None:
                callback()
        except Exception:
            log.exception("request failed after its connection was lost", path=self._path)

    def _finish_request(self) -> None:
        self.is_read = True
        if not self._is_answered:
            self._delegate.finish()

    # The answer: Tornado's HTTPConnection

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """Have *callback* called if the connection is lost before the answer is finished."""
        self._close_callback = callback

    def write_headers(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders, chunk: bytes | None = None
    ) -> "Future[None]":
        assert isinstance(start_line, ResponseStartLine)
        self.has_begun = True
        self._frame(start_line.code, headers)
        lines = [f"HTTP/1.1 {start_line.code} {start_line.reason}"]
        lines += [f"{name}: {value}" for name, value in headers.get_all()]
        if any(_LINE_END.search(line) for line in lines):
            raise ValueError("a header of the answer holds the end of a line")
        return self._wire.send("\r\n".join([*lines, "", ""]).encode("latin-1") + self._framed(chunk or b""))

    def write(self, chunk: bytes) -> "Future[None]":
        return self._wire.send(self._framed(chunk))

    def finish(self) -> None:
        self._is_answered = True
        self._close_callback = None
        if self._unwritten:
            self._wire.abort()
            raise HTTPOutputError(f"the answer is {self._unwritten} octets shorter than its Content-Length")
        if self._is_chunking:
            self._wire.send(b"0\r\n\r\n")
        self._wire.finished(self)

    def _frame(self, status: int, headers: HTTPHeaders) -> None:
        """Decide how the answer ends, and say so in *headers* (RFC 9112, section 6.3)."""
        if self._head.method == "HEAD" or status in (204, 304):
            self._unwritten = 0
        elif "Content-Length" in headers:
            self._unwritten = int(headers["Content-Length"])
        elif self._head.version == "HTTP/1.1":
            self._is_chunking = True
            headers["Transfer-Encoding"] = "chunked"
        else:
            self.must_close = True
        asks_to_close = headers.get("Connection", "").lower() == "close"
        self.must_close = self.must_close or asks_to_close or not self.is_read or self._wire.is_draining
        if self.must_close:
            headers["Connection"] = "close"
        elif self._head.connection:
            headers["Connection"] = self._head.connection

    def _framed(self, chunk: bytes) -> bytes:
        if self._unwritten is not None:
            if len(chunk) > self._unwritten:
                self._wire.abort()
                raise HTTPOutputError("the answer is longer than its Content-Length")
            self._unwritten -= len(chunk)
        return b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._is_chunking and chunk else chunk
