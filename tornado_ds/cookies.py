"""Our cookies: their names, their attributes, and how they are read."""

from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import urlsplit


class HostCookie:
    """
    A cookie that is for this host alone.

    Over https its name begins with `__Host-`, so that no other host and no plain
    http page can plant it (RFC 6265bis, section 4.1.3.2).
    """

    def __init__(self, name: str, public_url: str) -> None:
        self.is_secure = urlsplit(public_url).scheme == "https"
        self.name = f"__Host-{name}" if self.is_secure else name

    def read(self, header: str) -> str | None:
        """
        Return the value from a Cookie header; None if it is not there, or there more than once.

        Only space and tab are trimmed and names must match exactly: lenient
        parsers let a planted cookie such as `\\xa0__Host-access_token` pose as ours.
        """
        found = None
        for part in header.split(";"):
            # Most cookies of a site are not ours, and fall out at one look.
            if self.name not in part:
                continue
            name, equals, value = part.partition("=")
            if not equals or name.strip(" \t") != self.name:
                continue
            if found is not None:
                return None
            found = value
        return None if found is None else found.strip(" \t")

    def set_header(self, value: str, *, expires_at: int) -> str:
        """Return the Set-Cookie value that stores *value* until *expires_at* (seconds)."""
        attributes = f"Expires={_http_date(expires_at)}; Path=/; HttpOnly; SameSite=Lax"
        return f"{self.name}={value}; {attributes}{'; Secure' if self.is_secure else ''}"

    def clear_header(self) -> str:
        """Return the Set-Cookie value that removes it."""
        return self.set_header("", expires_at=0)


class SessionCookie(HostCookie):
    """The one cookie that carries a token; on plain http it has the tutorial's name."""

    def __init__(self, public_url: str) -> None:
        super().__init__("access_token", public_url)


class DeviceCookie(HostCookie):
    """The cookie by which `tornado_ds.devices` recognises a browser."""

    def __init__(self, public_url: str) -> None:
        super().__init__("device", public_url)


def _http_date(seconds: int) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)
