"""Whom to ask, and as whom."""

from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from tornado_ds.errors import ProbeError


@dataclass(frozen=True, slots=True)
class Target:
    """A URL without the credentials that stood in it, and these as an Authorization header."""

    url: str
    authorization: str | None = field(default=None, repr=False)

    @property
    def parts(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"{self.parts.scheme}://{self.parts.netloc}"


def port_of(url: str) -> int:
    """Return the port that *url* says or implies."""
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme in ("https", "wss") else 80)


def parse_target(text: str) -> Target:
    """
    Return the target that the URL *text* names.

    Raises:
        ProbeError: It is no URL that deepstream could ask.
    """
    try:
        parts = urlsplit(text)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or not text.isascii() or not text.isprintable() or " " in text:
        # Without the URL itself, which may hold the secret.
        raise ProbeError("this is no URL that can be asked: write http://host:port/check-token, or https://...")
    netloc = parts.netloc.rpartition("@")[2]
    has_credentials = parts.username is not None
    credentials = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    url = parts._replace(netloc=netloc, fragment="").geturl()
    return Target(url, basic_auth(credentials) if has_credentials else None)


def basic_auth(credentials: str) -> str:
    """Return the Authorization header (RFC 7617) of `user:password`."""
    encoded = b64encode(credentials.encode("utf-8", "replace"))
    return f"Basic {encoded.decode()}"
