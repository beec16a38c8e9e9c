"""What all handlers share: headers, errors, and who is logged in."""

from http.client import responses
from types import TracebackType
from typing import Any
from urllib.parse import quote

import orjson
import structlog
from tornado.web import HTTPError, RequestHandler

from tornado_ds.audit import Actor, act_as, user_actor
from tornado_ds.checker import Check
from tornado_ds.errors import OverloadedError, StorageError, TornadoDSError, UserDataError
from tornado_ds.escape import first_words
from tornado_ds.handlers.access import ID_HEADER, client_address
from tornado_ds.handlers.headers import HSTS, SECURITY_HEADERS, content_security_policy
from tornado_ds.services import Services
from tornado_ds.sessions import OpenSession
from tornado_ds.tokens import Claims
from tornado_ds.users import User

log = structlog.get_logger("web")

RETRY_AFTER_SECONDS = 5

_MESSAGES = {
    400: "Your browser sent something that we do not understand.",
    403: "You are not allowed to do that.",
    404: "There is nothing at this address.",
    405: "This address does not take requests of that kind.",
    413: "What you sent is too large.",
    415: "This address does not take files.",
    503: "We cannot answer just now. Please try again in a moment.",
}

_THEIR_TROUBLE = "We cannot answer this request."
_OUR_TROUBLE = "Something went wrong on our side."


class BaseHandler(RequestHandler):
    """A handler with our headers, our error pages, and `services`."""

    services: Services

    # Asked again and again by monitoring.
    is_probe = False

    # What the page may load and do.
    content_policy = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'"

    def initialize(self, services: Services) -> None:
        self.services = services

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in SECURITY_HEADERS.items():
            self.set_header(name, value)
        self.set_header("Content-Security-Policy", content_security_policy(self.content_policy))
        self.set_header(ID_HEADER, self.request.headers[ID_HEADER])
        if self.application.settings["is_https"]:
            self.set_header("Strict-Transport-Security", HSTS)

    def compute_etag(self) -> str | None:
        # What a session sees is never stored, so there is nothing to compare it with.
        return None

    def check_trusted_origin(self, origin: str) -> bool:
        return origin in self.services.settings.allowed_origins

    @property
    def wants_json(self) -> bool:
        """True if the client asks for JSON rather than for a page."""
        accept = self.request.headers.get("Accept", "")
        return "application/json" in accept and "text/html" not in accept

    @property
    def sends_json(self) -> bool:
        """True if the request's body is JSON."""
        return self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower() == "application/json"

    @property
    def is_page_request(self) -> bool:
        """True if a browser waits for a page, so that a redirect helps."""
        mode = self.request.headers.get("Sec-Fetch-Mode")
        return mode == "navigate" if mode else "text/html" in self.request.headers.get("Accept", "")

    @property
    def cookie_header(self) -> str:
        """All cookies that the browser sent."""
        return self.request.headers.get("Cookie", "")

    @property
    def client_address(self) -> str:
        """The address that the request came from, behind proxies that we trust."""
        return client_address(self.request, self.application.settings["trusted_proxies"])

    async def check_session(self) -> Check:
        """
        Return how the cookie of this request stands.

        Raises:
            StorageError: The user has changed, and the store does not answer.
        """
        token = self.services.cookie.read(self.cookie_header)
        if token is None:
            return Check(denial="not_logged_in")
        check = self.services.checker.check(token)
        if check.is_stale and check.claims is not None:
            return await self.services.checker.refresh(check.claims)
        return check

    def act_as(self, claims: Claims) -> None:
        """What this request changes from now on is audited as done by the user of *claims*, from here."""
        act_as(
            Actor(
                name=user_actor(claims.username),
                sid=claims.sid,
                address=self.client_address,
                user_agent=self.request.headers.get("User-Agent", ""),
            )
        )

    def set_session_cookie(self, opened: OpenSession) -> None:
        """Give the browser the token of *opened*."""
        header = self.services.cookie.set_header(opened.token, expires_at=opened.claims.expires_at)
        self.add_header("Set-Cookie", header)

    def remember_device(self, user: User) -> None:
        """Recognise the browser from now on: *user* has just logged in with it, or set the password that they have."""
        self.add_header("Set-Cookie", self.services.devices.remember(self.cookie_header, user))

    def clear_session_cookie(self) -> None:
        """Take the token from the browser."""
        self.add_header("Set-Cookie", self.services.cookie.clear_header())

    def write_json(self, value: dict[str, Any], *, status: int = 200) -> None:
        """Answer with *value* as JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.write(orjson.dumps(value))

    def render_page(self, template: str, *, title: str, username: str | None = None, **values: Any) -> None:
        """Answer with one of our pages."""
        self.render(template, title=title, username=username, **values)

    async def head(self, *args: str, **kwargs: str) -> None:
        """Answer as GET would; Tornado leaves the body out (RFC 9110, section 9.3.2)."""
        result = self.get(*args, **kwargs)
        if result is not None:
            await result

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        status = 503 if _is_our_trouble(kwargs.get("exc_info")) else status_code
        self.set_status(status)
        if status == 503:
            self.set_header("Retry-After", str(RETRY_AFTER_SECONDS))
        if status == 405:
            self.set_header("Allow", ", ".join(self._allowed_methods()))
        if self.is_page_request:
            message = _MESSAGES.get(status, _THEIR_TROUBLE if status < 500 else _OUR_TROUBLE)
            self.render_page("error.html", title=responses.get(status, "Error"), status=status, message=message)
        else:
            code = "unavailable" if status == 503 else responses.get(status, "error").lower().replace(" ", "_")
            self.write_json({"error": code}, status=status)
            self.finish()

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if isinstance(value, HTTPError):
            self._log_refusal(value)
        elif isinstance(value, TornadoDSError):
            log.error("request failed", reason=str(value))
        else:
            log.error("request failed", exc_info=value)

    def _log_refusal(self, error: HTTPError) -> None:
        if not error.log_message:
            return
        # What would be filled in is what the client sent; without placeholders it may have been filled in before.
        reason = error.log_message if error.args else first_words(error.log_message)
        # With a wrong `public_url` every form fails, and only this says why.
        details = {"origin": self.request.headers["Origin"]} if "Origin" in self.request.headers else {}
        log.info("request refused", reason=reason, **details)

    def _allowed_methods(self) -> list[str]:
        # `head` is ours for all of them, and good for as much as their `get`.
        behind = {method: "get" if method == "HEAD" else method.lower() for method in self.SUPPORTED_METHODS}
        return [
            method for method, name in behind.items() if getattr(type(self), name) is not getattr(RequestHandler, name)
        ]


class ProtectedHandler(BaseHandler):
    """
    A handler that only somebody with a live session reaches.

    Without one a page goes to the login and comes back; anything else gets 401
    with the reason. In the methods, `self.claims` says who it is. A session
    whose idle time is half over is renewed when a page is loaded.
    """

    claims: Claims

    async def prepare(self) -> None:
        check = await self.check_session()
        if check.claims is None:
            self._turn_away(check)
            return
        self.claims = check.claims
        self.act_as(self.claims)
        if self.request.method == "GET" and self.is_page_request and self.services.sessions.needs_renewal(self.claims):
            await self._renew_quietly()

    def get_current_user(self) -> str | None:
        claims: Claims | None = getattr(self, "claims", None)
        return None if claims is None else claims.username

    def _turn_away(self, check: Check) -> None:
        if check.denial == "unavailable":
            raise HTTPError(503)
        if self.is_page_request and self.request.method in ("GET", "HEAD"):
            self.redirect(f"/login?next={quote(self.request.uri or '/', safe='')}", status=303)
            return
        self.write_json({"error": check.denial}, status=401)
        self.finish()

    async def _renew_quietly(self) -> None:
        try:
            opened = await self.services.accounts.renew(self.claims)
        except TornadoDSError as exc:
            # The session is good as it is; the page need not wait for a database.
            log.warning("session not renewed", reason=str(exc))
            return
        self.claims = opened.claims
        self.set_session_cookie(opened)


class NotFoundHandler(BaseHandler):
    """Answers for every path that nobody else answers for."""

    async def prepare(self) -> None:
        raise HTTPError(404)


def spelled_out(seconds: int) -> str:
    """Return a time to wait in words, rounded up: seconds up to a minute, then minutes."""
    number, unit = (seconds, "second") if seconds <= 60 else (-(-seconds // 60), "minute")
    return f"{number} {unit}{'' if number == 1 else 's'}"


def _is_our_trouble(exc_info: tuple[object, object, object] | None) -> bool:
    # Data that no token holds are for the operator to mend, not for the person.
    return exc_info is not None and isinstance(exc_info[1], StorageError | OverloadedError | UserDataError)
