"""Where a request begins and ends: llhttp in its strict default, and what we refuse on top of it (RFC 9112)."""

import re
from dataclasses import dataclass

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from tornado_ds.errors import FramingError
from tornado_ds.handlers.framing import is_host

MAX_HEAD_BYTES = 16 * 1024

END_OF_HEAD = b"\r\n\r\n"

# llhttp also takes HTTP/0.9, HTTP/2.0, RTSP and more than one space.
_REQUEST_LINE = re.compile(rb"(?:\r\n)?[A-Z-]+ [!-~]+ HTTP/1\.[01]\r\n")
# No way to go on from here leads to a head: a first octet that begins no method, a bare CR, a bare LF.
_HOPELESS = re.compile(rb"\A(?:\r\n)*[^A-Z\r]|(?<!\r)\n|\r(?=[^\n])")

# So much of a chunked body is taken before others get their turn, in pieces that cost some microseconds each.
_PIECES = 64
_PIECE_BYTES = 1024

_CHUNKED_HEAD = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Head:
    """
    What stands before the body of one request.

    *headers* has the values of each header under its name in lower case, *length* is the number
    of octets of the body, None if it comes in chunks. *connection* is what the answer has to say
    about the connection: `close`, `keep-alive`, or nothing, which in HTTP/1.1 means that it stays.
    """

    method: str
    target: str
    version: str
    headers: dict[str, list[str]]
    length: int | None
    connection: str
    expects_continue: bool

    def get(self, name: str) -> str | None:
        """Return the value of the header *name* (in lower case), several of them as one list (RFC 9110, 5.3)."""
        values = self.headers.get(name)
        return None if values is None else ",".join(values)


def parse_head(raw: bytes) -> Head:
    """
    Return the head that *raw* is, from the request line to the empty line.

    Raises:
        FramingError: It is none, or leaves in doubt where its body ends or whom it is for.
    """
    parsed = _Parsed()
    try:
        parsed.parser.feed_data(raw)
    except HttpParserUpgrade:
        # Every upgrade is declined by staying with HTTP/1.1 (RFC 9110, section 7.8).
        pass
    except HttpParserError as exc:
        raise FramingError(str(exc)) from exc
    if not parsed.is_complete or _REQUEST_LINE.match(raw) is None:
        raise FramingError("this is no HTTP/1.0 or HTTP/1.1 request")
    is_recent = parsed.version == "1.1"
    _check_host(parsed.headers.get("host", []), is_needed=is_recent)
    # What follows a request for a tunnel is no HTTP, and nobody gets one here.
    is_tunnel = parsed.method == "CONNECT"
    return Head(
        method=parsed.method,
        target=parsed.target.decode("ascii"),
        version=f"HTTP/{parsed.version}",
        headers=parsed.headers,
        length=0 if is_tunnel else _body_length(parsed.headers, has_chunks=is_recent),
        connection="close" if is_tunnel or not parsed.keeps_alive else "" if is_recent else "keep-alive",
        expects_continue=is_recent
        and [value.lower() for value in parsed.headers.get("expect", [])] == ["100-continue"],
    )


def is_hopeless(start: bytes | bytearray, since: int = 0) -> bool:
    """True if no request can begin with *start*, because of what is at *since* or behind it."""
    return len(start) > MAX_HEAD_BYTES or _HOPELESS.search(start, since) is not None


def is_unfinished(start: bytes | bytearray, *, seen: int) -> bool:
    """True if *start* is no whole head yet, but can still become one, as its first *seen* octets could."""
    # No more than three of them have to do with what came since.
    since = max(0, seen - 3)
    return start.find(END_OF_HEAD, since) < 0 and not is_hopeless(start, since)


class ChunkedBody:
    """
    Takes the chunks of one body apart.

    llhttp does not tell how much it has taken, so it never gets to see anything
    behind the body: that can only end where two lines end in a row. Two lines may
    end in a row all through the content too, so only so many pieces are taken at once.
    """

    def __init__(self) -> None:
        self.is_complete = False
        self._parts: list[bytes] = []
        self._tail = b""
        self.on_body = self._parts.append
        self._parser = HttpRequestParser(self)
        self._parser.feed_data(_CHUNKED_HEAD)

    def on_message_complete(self) -> None:
        """llhttp calls this at the end."""
        self.is_complete = True

    def feed(self, data: bytes, start: int) -> tuple[bytes, int]:
        """
        Return content in *data* from *start* on, and where it ends: with the body, with *data*, or to go on from there.

        Raises:
            FramingError: These are no chunks.
        """
        view = memoryview(data)
        try:
            for _ in range(_PIECES):
                if start == len(data) or self.is_complete:
                    break
                stop = self._next_stop(data, start)
                self._parser.feed_data(view[start:stop])
                start = stop
        except HttpParserError as exc:
            raise FramingError(str(exc)) from exc
        content = b"".join(self._parts)
        self._parts.clear()
        return content, start

    def _next_stop(self, data: bytes, start: int) -> int:
        seam = self._tail + data[start : start + 3]
        found = seam.find(END_OF_HEAD)
        if found >= 0:
            stop = start + found + 4 - len(self._tail)
        else:
            end = min(len(data), start + _PIECE_BYTES)
            found = data.find(END_OF_HEAD, start, end)
            stop = end if found < 0 else found + 4
        self._tail = (self._tail + data[max(start, stop - 3) : stop])[-3:]
        return stop


class _Parsed:
    """Collects what llhttp calls out."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: dict[str, list[str]] = {}
        self.is_complete = False
        self.parser = HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.setdefault(name.decode("ascii").lower(), []).append(value.decode("latin-1").strip(" \t"))

    def on_headers_complete(self) -> None:
        self.is_complete = True
        self.method = self.parser.get_method().decode("ascii")
        self.version = self.parser.get_http_version()
        # Behind a request without a body llhttp does not know this any more.
        self.keeps_alive = self.parser.should_keep_alive()


def _body_length(headers: dict[str, list[str]], *, has_chunks: bool) -> int | None:
    codings = headers.get("transfer-encoding")
    if codings is not None:
        # llhttp would take any list that ends in chunked, and HTTP/1.0 has no chunks.
        if [coding.lower() for coding in codings] != ["chunked"] or not has_chunks:
            raise FramingError("this Transfer-Encoding is not understood")
        return None
    # llhttp has seen to it that there is at most one, of digits only.
    return int(headers.get("content-length", ["0"])[0])


def _check_host(hosts: list[str], *, is_needed: bool) -> None:
    if len(hosts) > 1 or (not hosts and is_needed):
        raise FramingError("a request names one host")
    if hosts and not is_host(hosts[0]):
        raise FramingError("this is no host")
