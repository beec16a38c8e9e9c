"""`GET /session-events`: the change feed as server-sent events (WHATWG HTML, section 9.2), for deepstream's plugin."""

import asyncio
from contextlib import aclosing
from typing import Any

import orjson
import structlog
from tornado.iostream import StreamClosedError

from tornado_ds.errors import StorageError
from tornado_ds.feed import Batch
from tornado_ds.handlers.base import BaseHandler
from tornado_ds.snapshot import SessionEvent

log = structlog.get_logger("session_events")

# A follower that takes nothing for so long is given up; it comes back with its last id.
WRITE_SECONDS = 30


class SessionEventsHandler(BaseHandler):
    """
    Streams `session.ended`, `session.renewed` and `user.changed`, from behind `Last-Event-ID` on.

    Wants the same basic auth as the webhook. One batch is written at a time, so
    a slow follower holds up nobody and costs no more memory than a fast one.
    """

    async def prepare(self) -> None:
        if not self.services.gate.is_deepstream(self.request.headers.get("Authorization")):
            self.set_header("WWW-Authenticate", 'Basic realm="deepstream"')
            self.write_json({"error": "unauthorized"}, status=401)
            self.finish()

    async def get(self) -> None:
        self._following: asyncio.Task[None] = asyncio.ensure_future(self._stream(_last_id(self.request.headers)))
        await asyncio.wait([self._following])
        # Cancelled when the follower hangs up.
        if not self._following.cancelled():
            self._following.result()

    def on_connection_close(self) -> None:
        if hasattr(self, "_following"):
            self._following.cancel()

    async def _stream(self, last_id: int | None) -> None:
        log.info("follower came", last_id=last_id)
        try:
            async with aclosing(self.services.feed.follow(last_id)) as batches:
                async for batch in batches:
                    self.set_header("Content-Type", "text/event-stream; charset=utf-8")
                    self.write(_as_text(batch))
                    # Not wait_for: with Python 3.11 it can overhear that the follower has hung up.
                    async with asyncio.timeout(WRITE_SECONDS):
                        await self.flush()
        except (StreamClosedError, TimeoutError):
            log.info("follower lost")
        except StorageError as exc:
            log.error("follower cannot be served", reason=str(exc))
            if not self._headers_written:
                self.send_error(503)


def _last_id(headers: Any) -> int | None:
    text = headers.get("Last-Event-ID", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def _as_text(batch: Batch) -> bytes:
    if batch.is_reset:
        return b"event: reset\ndata: {}\n\n"
    return b"".join(_event(event) for event in batch.events) or b": still here\n\n"


def _event(event: SessionEvent) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.kind.encode(), orjson.dumps(_data(event)))


def _data(event: SessionEvent) -> dict[str, Any]:
    if event.kind == "user.changed":
        return {"username": event.username, "version": event.version}
    data = {"sid": event.sid, "username": event.username, "expiresAt": event.expires_at * 1000}
    return {**data, "reason": event.reason} if event.kind == "session.ended" else data
