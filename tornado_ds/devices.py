"""
Device cookies: how a browser that has logged in before is told from a stranger's.

After "Slow Down Online Guessing Attacks with Device Cookies" (OWASP). The cookie
opens nothing; it only has failed logins counted apart from those of others.
"""

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence

from tornado_ds.clock import Clock
from tornado_ds.cookies import DeviceCookie
from tornado_ds.keys import Key, KeyRing
from tornado_ds.users import username_key

# The longest that browsers keep a cookie (RFC 6265bis, section 5.5).
LIFETIME_SECONDS = 400 * 24 * 3600

# People who share a browser.
MAX_ACCOUNTS = 4

_ENTRY = re.compile(r"([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{43})")


class Devices:
    """
    Recognises browsers by their device cookie.

    Its value is up to `MAX_ACCOUNTS` entries, `device.seal` with `~` between them. A
    seal is good for one account only, and the cookie does not say whose it is.
    """

    def __init__(self, cookie: DeviceCookie, *, keys: Callable[[], KeyRing], clock: Clock) -> None:
        self._cookie = cookie
        self._keys = keys
        self._clock = clock

    def recognise(self, header: str, username: str) -> str | None:
        """Return the device in the Cookie header *header* if *username* has logged in with it, or None."""
        entries = self._entries(header)
        return next((device for device, seal in entries if self._is_sealed(device, seal, username)), None)

    def remember(self, header: str, username: str) -> str:
        """Return the Set-Cookie value with which a browser that sent *header* is recognised from now on."""
        device = self.recognise(header, username) or secrets.token_urlsafe(16)
        others = [entry for entry in self._entries(header) if not self._is_sealed(*entry, username)]
        key = self._keys().signing_key_at(self._clock.now())
        entries = [(device, _seal(key, device, username)), *others]
        value = "~".join(f"{device}.{seal}" for device, seal in entries[:MAX_ACCOUNTS])
        return self._cookie.set_header(value, expires_at=int(self._clock.now()) + LIFETIME_SECONDS)

    def _entries(self, header: str) -> Sequence[tuple[str, str]]:
        parts = (self._cookie.read(header) or "").split("~", MAX_ACCOUNTS)[:MAX_ACCOUNTS]
        return [(match[1], match[2]) for part in parts if (match := _ENTRY.fullmatch(part)) is not None]

    def _is_sealed(self, device: str, seal: str, username: str) -> bool:
        return any(hmac.compare_digest(_seal(key, device, username), seal) for key in self._keys().keys)


def _seal(key: Key, device: str, username: str) -> str:
    # A secret of its own: no seal can ever be the signature of a token, or the other way round.
    message = f"{device}\n{username_key(username)}".encode("utf-8", "surrogatepass")
    digest = hmac.new(key.derive("device"), message, hashlib.sha256).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
