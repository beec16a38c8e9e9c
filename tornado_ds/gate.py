"""The gate of deepstream: one webhook body in, one verdict out, whatever carries them."""

import asyncio
import binascii
import hmac
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tornado_ds.accounts import Accounts
from tornado_ds.checker import Check, Denial, Remembered, SessionChecker
from tornado_ds.cookies import SessionCookie
from tornado_ds.errors import AuthenticationError, OverloadedError, StorageError, ThrottledError, UserDataError
from tornado_ds.escape import escaped
from tornado_ds.recent import Recent
from tornado_ds.tokens import Claims

MAX_BODY_BYTES = 64 * 1024
MAX_CREDENTIAL_BYTES = 1024
MAX_LOGGED = 200

# Tokens that are remembered with the answer to them: enough for a node's reconnecting
# clients, and at 1 KiB each, or 6 KiB with all the data that a user may have, not too
# much for a small machine.
MAX_REMEMBERED = 16_384

# deepstream waits 2 s for our answer; a login that is done later would leave a session that nobody knows of.
LOGIN_SECONDS = 1.5

_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    An answer for deepstream.

    *status* is one of 200, 401, 403, 413, 415 and 503, and a 200 always names
    the user: deepstream 5 to 10 lets a client in on any 200, and follows redirects.
    *code* is `ok` or the denial that the client sees.
    """

    status: int
    body: bytes
    content_type: str
    code: str


@dataclass(frozen=True, slots=True)
class Refusal(Verdict):
    """A verdict for somebody who is not let in; *details* are for the log, and fit for it."""

    details: Mapping[str, str]


class ConnectionGate:
    """Decides about every client that logs in to deepstream."""

    def __init__(
        self,
        *,
        checker: SessionChecker,
        accounts: Accounts,
        cookie: SessionCookie,
        secret: str,
        allowed_origins: Collection[str],
        credentials_login: bool,
        login_seconds: float = LOGIN_SECONDS,
    ) -> None:
        self._checker = checker
        self._accounts = accounts
        self._cookie = cookie
        self._credentials = f"deepstream:{secret}".encode()
        self._authorization = b"Basic " + b64encode(self._credentials)
        self._allowed_origins = frozenset(allowed_origins)
        self._credentials_login = credentials_login
        self._login_seconds = login_seconds
        self._answers: Recent[tuple[Remembered, Verdict]] = Recent(MAX_REMEMBERED)

    def decide(
        self, body: bytes, *, authorization: str | None, content_type: str | None
    ) -> Verdict | Awaitable[Verdict]:
        """
        Return the verdict about one webhook request, from its body and two of its headers.

        A token is decided at once, in memory. Only a password, and a token whose
        user has changed since, come back as something to await. Never raises.
        """
        return self.refusal(authorization=authorization, content_type=content_type) or self.decide_body(body)

    def refusal(self, *, authorization: str | None, content_type: str | None) -> Verdict | None:
        """Return the verdict about a request with these headers, whatever its body says; None if it is to be heard."""
        if not self.is_deepstream(authorization):
            return Verdict(401, b"unauthorized", _TEXT, "unauthorized")
        if content_type is None or content_type.partition(";")[0].strip().lower() != _JSON:
            return Verdict(415, b"send application/json", _TEXT, "unsupported_media_type")
        return None

    def decide_body(self, body: bytes) -> Verdict | Awaitable[Verdict]:
        """Return the verdict about the body of a request of deepstream's, as `decide` does."""
        if len(body) > MAX_BODY_BYTES:
            return too_large()
        try:
            request = orjson.loads(body)
        except orjson.JSONDecodeError:
            return _denied("not_logged_in", {}, reason="the body is no JSON")
        if not isinstance(request, dict):
            return _denied("not_logged_in", {}, reason="the body is no JSON object")
        return self._decide(_object(request.get("connectionData")), _object(request.get("authData")))

    def is_deepstream(self, authorization: str | None) -> bool:
        """True if *authorization* is basic auth (RFC 7617) with the webhook's secret."""
        if authorization is None:
            return False
        if hmac.compare_digest(authorization.encode("utf-8", "replace"), self._authorization):
            return True
        scheme, _, encoded = authorization.partition(" ")
        try:
            given = b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        return scheme.lower() == "basic" and hmac.compare_digest(given, self._credentials)

    def _decide(self, connection: dict[str, Any], auth: dict[str, Any]) -> Verdict | Awaitable[Verdict]:
        if "token" in auth:
            token = auth["token"]
            if not isinstance(token, str):
                return _denied("session_invalid", connection)
            return self._decide_token(token, connection)
        if "username" in auth or "password" in auth:
            return self._decide_credentials(connection, auth.get("username"), auth.get("password"))
        return self._decide_cookie(connection)

    def _decide_cookie(self, connection: dict[str, Any]) -> Verdict | Awaitable[Verdict]:
        headers = _object(connection.get("headers"))
        cookies = headers.get("cookie")
        if not isinstance(cookies, str) or not cookies:
            return _denied("not_logged_in", connection, reason=_why_no_cookie(connection))
        token = self._cookie.read(cookies)
        if token is None:
            return _denied("not_logged_in", connection, reason="no cookie of ours, or more than one")
        # The browser sends the cookie along from any page that opens a socket;
        # only the origin tells our page from a stranger's.
        origin = headers.get("origin")
        if not isinstance(origin, str) or origin not in self._allowed_origins:
            return _denied("origin_denied", connection)
        return self._decide_token(token, connection)

    def _decide_token(self, token: str, connection: dict[str, Any]) -> Verdict | Awaitable[Verdict]:
        known = self._answers.get(token)
        if known is not None and self._checker.counts_still(known[0]):
            return known[1]
        check = self._checker.check(token)
        if check.claims is None:
            return _verdict(check, connection)
        if check.is_stale:
            return self._refresh(check.claims, connection)
        verdict = _allowed(check.claims)
        self._answers.put(token, (self._checker.remember(check.claims), verdict))
        return verdict

    async def _refresh(self, stale: Claims, connection: dict[str, Any]) -> Verdict:
        try:
            return _verdict(await self._checker.refresh(stale), connection)
        except StorageError as exc:
            return _denied("unavailable", connection, reason=f"cannot read a changed user: {exc}")

    def _decide_credentials(
        self, connection: dict[str, Any], username: object, password: object
    ) -> Verdict | Awaitable[Verdict]:
        if not self._credentials_login:
            return _denied("invalid_credentials", connection, reason="webhook.credentials_login is off")
        if not _is_credential(username) or not _is_credential(password):
            return _denied("invalid_credentials", connection, reason="no username and password of a sensible length")
        return self._log_in(str(username), str(password), connection)

    async def _log_in(self, username: str, password: str, connection: dict[str, Any]) -> Verdict:
        try:
            # Failures count for the account only: all calls come from deepstream, and
            # what it says of the client's address is the client's invention.
            address = _address_of(connection)
            async with asyncio.timeout(self._login_seconds):
                opened = await self._accounts.log_in(username, password, address=address, user_agent="deepstream")
        except AuthenticationError:
            return _denied("invalid_credentials", connection)
        except ThrottledError:
            return _denied("throttled", connection)
        except (OverloadedError, StorageError, UserDataError) as exc:
            return _denied("unavailable", connection, reason=str(exc))
        except TimeoutError:
            return _denied("unavailable", connection, reason="too many logins at once, this one took too long")
        return _allowed(opened.claims, token=opened.token)


def too_large() -> Verdict:
    """Return the verdict about a body that is larger than any honest one."""
    return Verdict(413, b"too large", _TEXT, "too_large")


def _verdict(check: Check, connection: dict[str, Any]) -> Verdict:
    if check.claims is not None:
        return _allowed(check.claims)
    return _denied(check.denial or "unavailable", connection)


def _allowed(claims: Claims, *, token: str | None = None) -> Verdict:
    """Return a 200 with `id` for deepstream 5 and later, and `username` for 2 to 4."""
    expires_at = claims.expires_at * 1000
    handed_over = {} if token is None else {"token": token}
    answer = {
        "id": claims.username,
        "username": claims.username,
        "clientData": {**claims.client_data, "username": claims.username, "expiresAt": expires_at, **handed_over},
        "serverData": {
            **claims.server_data,
            "sid": claims.sid,
            "version": claims.version,
            "expiresAt": expires_at,
        },
        **handed_over,
    }
    # orjson hands over its whole buffer, of 4 KiB and more; these are kept by the thousand.
    return Verdict(200, bytes(memoryview(orjson.dumps(answer))), _JSON, "ok")


def _denied(code: Denial, connection: dict[str, Any], *, reason: str = "") -> Refusal:
    """Return a refusal with *code* as its text: all that deepstream's client gets to see."""
    origin = _text(_object(connection.get("headers")).get("origin"))
    details = {"origin": origin, "address": _address_of(connection), "reason": reason}
    return Refusal(
        503 if code == "unavailable" else 403,
        code.encode(),
        _TEXT,
        code,
        {name: text for name, text in details.items() if text},
    )


def _address_of(connection: dict[str, Any]) -> str:
    """Return where a client says that it is: deepstream believes its X-Forwarded-For."""
    headers = _object(connection.get("headers"))
    return _text(connection.get("remoteAddress")) or _text(headers.get("x-forwarded-for"))


def _why_no_cookie(connection: dict[str, Any]) -> str:
    if "cookie" in _object(connection.get("headers")) or "headers" not in connection:
        return "no cookie"
    return (
        "no cookie header: the client sent none, or deepstream's uws service does not pass it on"
        " (httpServer.options.headers must list cookie, origin, user-agent, x-forwarded-for)"
    )


def _text(value: object) -> str:
    return escaped(value, MAX_LOGGED) if isinstance(value, str) else ""


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_credential(value: object) -> bool:
    """True for text of a sensible length."""
    return isinstance(value, str) and 0 < len(value) <= MAX_CREDENTIAL_BYTES
