"""A browser, as far as a server can tell: it keeps cookies, follows no redirect, and says what it sends."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

import orjson
from tornado.httpclient import AsyncHTTPClient, HTTPResponse

from tests.canaries import PASSWORD as PASSWORD

PAGE = {"Accept": "text/html,application/xhtml+xml", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin"}
SCRIPT = {"Accept": "application/json", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}


class Browser:
    """One person's browser at one server."""

    def __init__(self, client: AsyncHTTPClient, base_url: str) -> None:
        self.client = client
        self.base_url = base_url
        self.cookies: dict[str, str] = {}

    async def get(self, path: str, **headers: str) -> HTTPResponse:
        """Load a page."""
        return await self.fetch("GET", path, headers=PAGE | _named(headers))

    async def ask(self, path: str, **headers: str) -> HTTPResponse:
        """Ask from a script."""
        return await self.fetch("GET", path, headers=SCRIPT | _named(headers))

    async def submit(self, path: str, fields: Mapping[str, str | bytes], **headers: str) -> HTTPResponse:
        """Submit a form of a page."""
        return await self.fetch("POST", path, body=urlencode(fields), headers=PAGE | FORM | _named(headers))

    async def send(self, path: str, value: object = None, **headers: str) -> HTTPResponse:
        """Send JSON from a script."""
        body = b"" if value is None else orjson.dumps(value)
        return await self.fetch("POST", path, body=body, headers=SCRIPT | JSON | _named(headers))

    async def log_in(self, username: str = "alice", password: str = PASSWORD, **fields: str) -> HTTPResponse:
        """Fill in the form and send it."""
        return await self.submit("/handle-login", {"username": username, "password": password, **fields})

    async def fetch(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> HTTPResponse:
        """Send any request, with the cookies; keep those that come back."""
        sent = dict(headers or {})
        if self.cookies and "Cookie" not in sent:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        response = await self.client.fetch(
            self.base_url + path,
            method=method,
            headers=sent,
            follow_redirects=False,
            raise_error=False,
            allow_nonstandard_methods=True,
            **options,
        )
        for header in response.headers.get_list("Set-Cookie"):
            self._keep(header)
        return response

    def _keep(self, header: str) -> None:
        for name, morsel in SimpleCookie(header).items():
            if parsedate_to_datetime(morsel["expires"]).timestamp() > 0:
                self.cookies[name] = morsel.value
            else:
                self.cookies.pop(name, None)


def json_of(response: HTTPResponse) -> Any:
    """What a JSON answer says."""
    assert response.headers["Content-Type"].startswith("application/json")
    return orjson.loads(response.body)


def session_cookie(response: HTTPResponse) -> str | None:
    """The Set-Cookie header of the session cookie, None if there is none."""
    return next(
        (header for header in response.headers.get_list("Set-Cookie") if "access_token=" in header.split(";")[0]), None
    )


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    """Header names from keyword names."""
    return {name.replace("_", "-"): value for name, value in headers.items()}
