"""What makes the way of `/check-token` short: heads that are known already, and heads of answers that are ready."""

from dataclasses import dataclass
from functools import lru_cache
from http.client import responses

from tornado_ds.errors import FramingError
from tornado_ds.gate import MAX_BODY_BYTES, ConnectionGate, Verdict
from tornado_ds.handlers.webhook import PATH, answer_headers
from tornado_ds.llhttp.framing import MAX_HEAD_BYTES, Head, parse_head

# deepstream sends the same few heads over and over, which differ in Content-Length only.
_KNOWN_HEADS = 1024
_KNOWN_HEAD_BYTES = 1024

_BAD_REQUEST = b"bad request"


@dataclass(frozen=True, slots=True)
class Request:
    """
    A head, and whether its request can go straight to the gate.

    *refusal* is what the gate says of such a request already because of its head.
    """

    head: Head
    is_check: bool
    length: int
    connection: str
    refusal: Verdict | None


class Requests:
    """Reads heads, for the webhook of *gate*; the same octets are the same head, and need not be parsed again."""

    def __init__(self, gate: ConnectionGate) -> None:
        self._gate = gate
        self._known = lru_cache(_KNOWN_HEADS)(self._request)

    def read(self, raw: bytes) -> Request:
        """
        Return the request that begins with the head *raw*.

        Raises:
            FramingError: It is none that we take.
        """
        if len(raw) <= _KNOWN_HEAD_BYTES:
            return self._known(raw)
        if len(raw) <= MAX_HEAD_BYTES:
            return self._request(raw)
        raise FramingError("the head is too long")

    def _request(self, raw: bytes) -> Request:
        head = parse_head(raw)
        is_check = (
            head.method == "POST"
            and head.target.partition("?")[0] == PATH
            and head.length is not None
            and head.length <= MAX_BODY_BYTES
            and not head.expects_continue
        )
        authorization, content_type = head.get("authorization"), head.get("content-type")
        return Request(
            head=head,
            is_check=is_check,
            length=head.length or 0,
            connection=head.connection,
            refusal=self._gate.refusal(authorization=authorization, content_type=content_type) if is_check else None,
        )


class Answers(dict[tuple[int, str, str], bytes]):
    """Heads of answers up to the value of Content-Length, by status, type and what they say about the connection."""

    def __init__(self, *, is_https: bool) -> None:
        self._is_https = is_https

    @property
    def bad_request(self) -> bytes:
        """The whole answer to what is no request, after which the connection closes."""
        return b"%b%d\r\n\r\n%b" % (self[400, "text/plain; charset=utf-8", "close"], len(_BAD_REQUEST), _BAD_REQUEST)

    def __missing__(self, key: tuple[int, str, str]) -> bytes:
        status, content_type, connection = key
        headers = answer_headers(status, content_type, is_https=self._is_https)
        if connection:
            headers["Connection"] = connection
        lines = [f"HTTP/1.1 {status} {responses[status]}", *(f"{name}: {value}" for name, value in headers.items())]
        self[key] = "\r\n".join([*lines, "Content-Length: "]).encode("latin-1")
        return self[key]
