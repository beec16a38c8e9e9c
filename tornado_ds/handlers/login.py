"""Logging in and out."""

import orjson
import structlog
from tornado.web import HTTPError

from tornado_ds.errors import AuthenticationError, OverloadedError, ThrottledError, UserDataError
from tornado_ds.handlers.base import RETRY_AFTER_SECONDS, BaseHandler, spelled_out
from tornado_ds.handlers.forms import MAX_FIELD_BYTES, UNREADABLE, form_field
from tornado_ds.throttle import Source
from tornado_ds.users import User

log = structlog.get_logger("login")

MAX_NEXT = 2048

_LIMITS = {"username": MAX_FIELD_BYTES, "password": MAX_FIELD_BYTES, "next": MAX_NEXT}

_WRONG = "The username or the password is not right."
_BUSY = "Too many people are logging in at this moment. Please try again in a few seconds."
_TOO_LONG = "There is something wrong with your account on our side. Please tell whoever runs this site."
_THROTTLED = "There were too many failed logins. Please try again in {}."
_NOTICES = {"logged-out": "You are logged out."}


class LoginHandler(BaseHandler):
    """`GET /login`: the form."""

    async def get(self) -> None:
        target = local_path(self.get_query_argument("next", "/"))
        check = await self.check_session()
        if check.claims is not None:
            self.redirect(target, status=303)
            return
        self.show_form(target=target, notice=_NOTICES.get(self.get_query_argument("notice", "")))

    def show_form(self, *, target: str, name: str = "", message: str | None = None, notice: str | None = None) -> None:
        """Answer with the form, filled in as far as it was before."""
        self.render_page("login.html", title="Log in", next=target, name=name, message=message, notice=notice)


class HandleLoginHandler(LoginHandler):
    """`POST /handle-login`: the form's target, and the same for JSON."""

    async def get(self) -> None:
        self.redirect("/login", status=303)

    async def post(self) -> None:
        fields = self._fields()
        username, password = fields["username"], fields["password"]
        target = local_path(fields["next"])
        try:
            opened = await self.services.accounts.log_in(
                username,
                password,
                address=self.client_address,
                user_agent=self.request.headers.get("User-Agent", ""),
                source=self._source,
            )
        except AuthenticationError:
            self._refuse(403, "invalid_credentials", _WRONG, target=target, name=username)
            return
        except ThrottledError as exc:
            self.set_header("Retry-After", str(exc.seconds))
            message = _THROTTLED.format(spelled_out(exc.seconds))
            self._refuse(429, "throttled", message, target=target, name=username)
            return
        except OverloadedError:
            self.set_header("Retry-After", str(RETRY_AFTER_SECONDS))
            self._refuse(503, "unavailable", _BUSY, target=target, name=username)
            return
        except UserDataError as exc:
            # Nothing that the person could mend, and no reason to try again.
            log.error("login failed", reason=str(exc))
            self._refuse(503, "unavailable", _TOO_LONG, target=target, name=username)
            return
        self.act_as(opened.claims)
        await self._end_previous_session()
        self.set_session_cookie(opened)
        self.remember_device(opened.user)
        if self.wants_json:
            self.write_json({"username": opened.claims.username, "expiresAt": opened.claims.expires_at * 1000})
        else:
            self.redirect(target, status=303)

    def _source(self, user: User | None) -> Source:
        device = None if user is None else self.services.devices.recognise(self.cookie_header, user)
        return Source(address=self.client_address, device=device)

    def _refuse(self, status: int, code: str, message: str, *, target: str, name: str) -> None:
        if self.wants_json:
            self.write_json({"error": code}, status=status)
            return
        self.set_status(status)
        self.show_form(target=target, name="" if name == UNREADABLE else name, message=message)

    def _fields(self) -> dict[str, str]:
        """Return username, password and next exactly as they were typed."""
        if self.sends_json:
            return _read_json(self.request.body)
        return {name: form_field(self.request, name, limit=limit) for name, limit in _LIMITS.items()}

    async def _end_previous_session(self) -> None:
        """End the session that this browser had before; nobody could end it any more."""
        check = await self.check_session()
        if check.claims is not None:
            await self.services.sessions.end(check.claims.sid, reason="replaced")


class LogoutHandler(BaseHandler):
    """`POST /logout`: ends the session; a second or late click ends as kindly as the first."""

    async def post(self) -> None:
        check = await self.check_session()
        if check.denial == "unavailable":
            # It may well live, and whoever hears that it is over looks no further.
            raise HTTPError(503)
        if check.claims is not None:
            self.act_as(check.claims)
            await self.services.sessions.end(check.claims.sid, reason="logout")
        self.clear_session_cookie()
        # No form sends JSON, but deepstream does: with its webhook set to this
        # address by mistake, it would follow a redirect and let everybody in.
        if self.wants_json or self.sends_json:
            self.set_status(204)
        else:
            self.redirect("/login?notice=logged-out", status=303)

    async def get(self) -> None:
        self.redirect("/", status=303)


def local_path(target: str) -> str:
    """Return *target* if it is a path on this server that is safe to redirect to, else `/`."""
    is_safe = (
        len(target) <= MAX_NEXT
        and target.startswith("/")
        and "//" not in target
        and "\\" not in target
        and all("!" <= character <= "~" for character in target)
    )
    return target if is_safe else "/"


def _read_json(body: bytes) -> dict[str, str]:
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError:
        given = None
    fields = given if isinstance(given, dict) else {}
    return {name: _text(fields.get(name), limit=limit) for name, limit in _LIMITS.items()}


def _text(value: object, *, limit: int) -> str:
    """Return *value* if it is text of at most *limit* bytes, as `form_field` does."""
    return value if isinstance(value, str) and len(value.encode()) <= limit else UNREADABLE
