"""Who am I, until when, where else am I logged in, and with which password."""

from dataclasses import dataclass
from urllib.parse import quote

from tornado.web import HTTPError

from tornado_ds.browsers import browser_name
from tornado_ds.clock import iso
from tornado_ds.errors import (
    AuthenticationError,
    ReadOnlyUserStoreError,
    SessionNotFoundError,
    ThrottledError,
    UserDataError,
    UserNotFoundError,
)
from tornado_ds.handlers.base import BaseHandler, ProtectedHandler, spelled_out
from tornado_ds.handlers.forms import UNREADABLE, form_field
from tornado_ds.passwords import MAX_PASSWORD_BYTES
from tornado_ds.sessions import Session
from tornado_ds.tokens import Claims
from tornado_ds.users import is_read_only

KEPT_ELSEWHERE = "Your password is kept elsewhere, and cannot be changed here."

_NOTICES = {
    "ended": "The session is ended.",
    "others-ended": "All your other sessions are ended.",
    "password": "Your password is changed, and all your other sessions are ended.",
}


class AccountHandler(ProtectedHandler):
    """`GET /account`: one's own sessions, and the form for a new password."""

    # A script of ours shows the times in the zone of whoever reads.
    content_policy = f"{ProtectedHandler.content_policy}; script-src 'self'"

    async def get(self) -> None:
        await self.show(notice=_NOTICES.get(self.get_query_argument("notice", "")))

    async def show(self, *, message: str | None = None, notice: str | None = None) -> None:
        """Answer with the page."""
        sessions = await self.services.sessions.list(self.claims.username)
        self.render_page(
            "account.html",
            title="Your account",
            username=self.claims.username,
            sessions=[_row(session, current=self.claims.sid) for session in sessions],
            min_length=self.services.settings.passwords.min_length,
            max_length=MAX_PASSWORD_BYTES,
            kept_elsewhere=KEPT_ELSEWHERE if is_read_only(self.services.users) else None,
            message=message,
            notice=notice,
        )


class EndSessionHandler(ProtectedHandler):
    """`POST /account/end-session`: ends one of one's own sessions."""

    async def post(self) -> None:
        sid = form_field(self.request, "sid")
        # PostgreSQL, which has no such character, would call it an error of the database.
        if UNREADABLE not in sid:
            await self.services.sessions.end(sid, username=self.claims.username, reason="ended_by_user")
        self.redirect("/account?notice=ended", status=303)


class EndOthersHandler(ProtectedHandler):
    """`POST /account/end-others`: ends all of one's own sessions but this one."""

    async def post(self) -> None:
        name, keep = self.claims.username, self.claims.sid
        await self.services.sessions.end_all(name, reason="ended_by_user", keep=keep)
        self.redirect("/account?notice=others-ended", status=303)


class PasswordHandler(AccountHandler):
    """`POST /account/password`: a new password for somebody who knows the current one."""

    async def get(self) -> None:
        self.redirect("/account", status=303)

    async def post(self) -> None:
        accounts, name = self.services.accounts, self.claims.username
        current, new = form_field(self.request, "current_password"), form_field(self.request, "new_password")
        try:
            user = await accounts.change_password(name, current=current, new=new, keep=self.claims.sid)
            opened = await accounts.renew(self.claims)
        except AuthenticationError:
            self.set_status(403)
            await self.show(message="The current password is not right.")
        except ThrottledError as exc:
            self.set_status(429)
            self.set_header("Retry-After", str(exc.seconds))
            wait = spelled_out(exc.seconds)
            await self.show(message=f"The current password was wrong too often. Please try again in {wait}.")
        except UserDataError as exc:
            self.set_status(422)
            await self.show(message=_sentence(str(exc)))
        except ReadOnlyUserStoreError:
            self.set_status(409)
            await self.show(message=KEPT_ELSEWHERE)
        except (SessionNotFoundError, UserNotFoundError):
            # Ended or removed a moment ago by another server, of which this one has not heard yet.
            self.redirect("/login", status=303)
        else:
            self.set_session_cookie(opened)
            self.remember_device(user)
            self.redirect("/account?notice=password", status=303)


class SessionHandler(ProtectedHandler):
    """`GET /session`: `{username, expiresAt}` (milliseconds), or 401."""

    is_page_request = False

    async def get(self) -> None:
        self.write_json(_as_json(self.claims))


class RenewHandler(ProtectedHandler):
    """`POST /session/renew`: moves the session's end and answers like `GET /session`."""

    is_page_request = False

    async def post(self) -> None:
        try:
            opened = await self.services.accounts.renew(self.claims)
        except SessionNotFoundError:
            self.write_json({"error": "session_ended"}, status=401)
            return
        self.set_session_cookie(opened)
        self.write_json(_as_json(opened.claims))


class VerifyHandler(BaseHandler):
    """
    `GET /auth/verify`: for proxies that ask before they pass a request on.

    204 with the percent-encoded name in `X-Auth-User`, or 401 with the reason in `X-Auth-Error`.
    """

    async def get(self) -> None:
        check = await self.check_session()
        if check.denial == "unavailable":
            raise HTTPError(503)
        if check.claims is None:
            self.set_status(401)
            self.set_header("X-Auth-Error", check.denial or "not_logged_in")
            return
        self.set_status(204)
        self.set_header("X-Auth-User", quote(check.claims.username, safe=""))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _as_json(claims: Claims) -> dict[str, str | int]:
    return {"username": claims.username, "expiresAt": claims.expires_at * 1000}


@dataclass(frozen=True, slots=True)
class _Row:
    sid: str
    browser: str
    address: str
    started: str
    renewed: str
    label: str | None
    is_current: bool


def _row(session: Session, *, current: str) -> _Row:
    return _Row(
        sid=session.sid,
        browser=browser_name(session.user_agent),
        address=session.address,
        started=iso(session.created_at),
        renewed=iso(session.renewed_at),
        label=session.label,
        is_current=session.sid == current,
    )
