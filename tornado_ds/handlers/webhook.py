"""Carries `/check-token` to the gate and back, without Tornado's RequestHandler in between."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http.client import responses

import structlog
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)

from tornado_ds.gate import ConnectionGate, Refusal, Verdict, too_large
from tornado_ds.handlers.access import new_id
from tornado_ds.handlers.headers import HSTS, NOTHING, SECURITY_HEADERS, content_security_policy

log = structlog.get_logger("webhook")
_stdlib_log = logging.getLogger("webhook")

PATH = "/check-token"

# What somebody should look at: a page of a stranger, or a foreign address of ours; and our own trouble.
_LEVELS = {"origin_denied": logging.WARNING, "unavailable": logging.ERROR}

_METHOD_NOT_ALLOWED = Verdict(405, b"send POST", "text/plain; charset=utf-8", "method_not_allowed")
_UNAVAILABLE = Verdict(503, b"unavailable", "text/plain; charset=utf-8", "unavailable")


class WebhookDelegate(HTTPMessageDelegate):
    """
    One request to `/check-token`.

    Whatever comes is answered from the closed list of statuses: a redirect, or
    a 404 on a slip of ours, would let clients in or make deepstream ask again.
    """

    def __init__(
        self,
        connection: HTTPConnection,
        gate: ConnectionGate,
        *,
        headers: "AnswerHeaders",
        answered: Callable[[Verdict], None],
    ) -> None:
        self._connection = connection
        self._gate = gate
        self._answered = answered
        self._answer_headers = headers
        self._body = bytearray()
        self._task: asyncio.Task[None] | None = None

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        assert isinstance(start_line, RequestStartLine)
        self._method = start_line.method
        self._headers = headers
        return None

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        self._body += chunk
        return None

    def finish(self) -> None:
        verdict = self._decide()
        if isinstance(verdict, Verdict):
            self._answer(verdict)
        else:
            self._task = asyncio.ensure_future(self._answer_later(verdict))

    def refuse_body(self) -> None:
        """Answer that the body, which did not come here, was too large."""
        self._answer(too_large())

    def on_connection_close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _decide(self) -> Verdict | Awaitable[Verdict]:
        if self._method != "POST":
            return _METHOD_NOT_ALLOWED
        refusal = self._gate.refusal(
            authorization=self._headers.get("Authorization"), content_type=self._headers.get("Content-Type")
        )
        return refusal or judge(self._gate, bytes(self._body))

    async def _answer_later(self, pending: Awaitable[Verdict]) -> None:
        self._answer(await pending)

    def _answer(self, verdict: Verdict) -> None:
        headers = self._answer_headers[verdict.status, verdict.content_type]
        headers["Content-Length"] = str(len(verdict.body))
        # Tornado puts it in for whoever gets no other answer; what it needs it has read when it returns.
        headers.pop("Connection", None)
        start_line = ResponseStartLine("HTTP/1.1", verdict.status, responses[verdict.status])
        body = b"" if self._method == "HEAD" else verdict.body
        self._connection.write_headers(start_line, headers, body)
        self._connection.finish()
        self._answered(verdict)


def judge(gate: ConnectionGate, body: bytes) -> Verdict | Awaitable[Verdict]:
    """Return the verdict of *gate* about *body*; a slip of ours, now or later, is a 503."""
    try:
        verdict = gate.decide_body(body)
    except Exception:
        log.exception("the gate failed")
        return _UNAVAILABLE
    return verdict if isinstance(verdict, Verdict) else _settle(verdict)


class AnswerHeaders(dict[tuple[int, str], HTTPHeaders]):
    """Headers of answers, by status and type, used again and again: to make them takes as long as to check a token."""

    def __init__(self, *, is_https: bool) -> None:
        self._is_https = is_https

    def __missing__(self, key: tuple[int, str]) -> HTTPHeaders:
        self[key] = HTTPHeaders(answer_headers(*key, is_https=self._is_https))
        return self[key]


def answer_headers(status: int, content_type: str, *, is_https: bool) -> dict[str, str]:
    """Return the headers of an answer, without Content-Length."""
    headers = {
        "Content-Type": content_type,
        "Content-Security-Policy": content_security_policy(NOTHING),
        **SECURITY_HEADERS,
    }
    if is_https:
        headers["Strict-Transport-Security"] = HSTS
    if status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="deepstream"'
    if status == 405:
        headers["Allow"] = "POST"
    return headers


def log_verdict(verdict: Verdict) -> None:
    """Write the line of the access log: refusals always, the many others only for those who debug."""
    if verdict.status != 200:
        details = verdict.details if isinstance(verdict, Refusal) else {}
        level = _LEVELS.get(verdict.code, logging.INFO)
        log.log(level, "connection refused", status=verdict.status, code=verdict.code, **details)
    elif _stdlib_log.isEnabledFor(logging.DEBUG):
        log.debug("connection allowed", status=verdict.status, code=verdict.code)


async def _settle(pending: Awaitable[Verdict]) -> Verdict:
    # Each of these has a task to itself, whose lines in the log belong together.
    structlog.contextvars.bind_contextvars(request_id=new_id())
    try:
        return await pending
    except Exception:
        log.exception("the gate failed")
        return _UNAVAILABLE
