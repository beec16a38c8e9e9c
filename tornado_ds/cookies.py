"""The session cookie: its name, its attributes, and how it is read."""

from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import urlsplit


class SessionCookie:
    """
    The one cookie that carries a token.

    Over https it is `__Host-access_token`, which no other host and no plain
    http page can plant (RFC 6265bis, section 4.1.3.2); on plain http
    it has the tutorial's name.
    """

    def __init__(self, public_url: str) -> None:
        self.is_secure = urlsplit(public_url).scheme == "https"
        self.name = "__Host-access_token" if self.is_secure else "access_token"

    def read(self, header: str) -> str | None:
        """
        Return the value from a Cookie header; None if it is not there, or there more than once.

        Only space and tab are trimmed and names must match exactly: lenient
        parsers let a planted cookie such as `\\xa0__Host-access_token` pose as ours.
        """
        found = [
            value.strip(" \t")
            for name, equals, value in (part.partition("=") for part in header.split(";"))
            if equals and name.strip(" \t") == self.name
        ]
        return found[0] if len(found) == 1 else None

    def set_header(self, token: str, *, expires_at: int) -> str:
        """Return the Set-Cookie value that stores *token* until *expires_at* (seconds)."""
        attributes = f"Expires={_http_date(expires_at)}; Path=/; HttpOnly; SameSite=Lax"
        return f"{self.name}={token}; {attributes}{'; Secure' if self.is_secure else ''}"

    def clear_header(self) -> str:
        """Return the Set-Cookie value that removes it."""
        return self.set_header("", expires_at=0)


def _http_date(seconds: int) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)
