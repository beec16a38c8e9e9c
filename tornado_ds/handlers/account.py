"""Who am I, until when, and for how much longer."""

from urllib.parse import quote

from tornado.web import HTTPError

from tornado_ds.errors import SessionNotFoundError
from tornado_ds.handlers.base import BaseHandler, ProtectedHandler
from tornado_ds.tokens import Claims


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


def _as_json(claims: Claims) -> dict[str, str | int]:
    return {"username": claims.username, "expiresAt": claims.expires_at * 1000}
