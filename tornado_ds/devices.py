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
from typing import NamedTuple

from tornado_ds.clock import Clock
from tornado_ds.cookies import DeviceCookie
from tornado_ds.keys import Key, KeyRing
from tornado_ds.users import User, username_key

# The longest that browsers keep a cookie (RFC 6265bis, section 5.5).
LIFETIME_SECONDS = 400 * 24 * 3600

# People who share a browser.
MAX_ACCOUNTS = 4

_ENTRY = re.compile(r"([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})")


class _Entry(NamedTuple):
    """A device, sealed for an account, and for the password by which it logged in."""

    device: str
    account_seal: str
    password_seal: str


class Devices:
    """
    Recognises browsers by their device cookie.

    Its value is up to `MAX_ACCOUNTS` entries, `device.seal.seal` with `~` between them.
    An entry is good for one account only, and the cookie does not say whose it is.
    """

    def __init__(self, cookie: DeviceCookie, *, keys: Callable[[], KeyRing], clock: Clock) -> None:
        self._cookie = cookie
        self._keys = keys
        self._clock = clock

    def recognise(self, header: str, user: User) -> str | None:
        """
        Return the device in the Cookie header *header* with which *user* has logged in, or None.

        A device is forgotten when the password changes: whoever had a leaked one could
        have logged in any number of times, and would guess with each device at the next.
        """
        own = (entry for entry in self._entries(header) if self._is_of(entry, user))
        return next((entry.device for entry in own if self._has_password(entry, user)), None)

    def remember(self, header: str, user: User) -> str:
        """
        Return the Set-Cookie value with which a browser that sent *header* is recognised from now on.

        For somebody who has just shown that they know the password of *user*.
        """
        entries = self._entries(header)
        own = [entry for entry in entries if self._is_of(entry, user)]
        device = own[0].device if own else secrets.token_urlsafe(16)
        new = _sealed(self._keys().signing_key_at(self._clock.now()), device, user)
        kept = [new, *(entry for entry in entries if entry not in own)][:MAX_ACCOUNTS]
        value = "~".join(".".join(entry) for entry in kept)
        return self._cookie.set_header(value, expires_at=int(self._clock.now()) + LIFETIME_SECONDS)

    def _entries(self, header: str) -> Sequence[_Entry]:
        parts = (self._cookie.read(header) or "").split("~", MAX_ACCOUNTS)[:MAX_ACCOUNTS]
        return [_Entry(*match.groups()) for part in parts if (match := _ENTRY.fullmatch(part)) is not None]

    def _is_of(self, entry: _Entry, user: User) -> bool:
        seals = (_sealed(key, entry.device, user).account_seal for key in self._keys().keys)
        return any(hmac.compare_digest(seal, entry.account_seal) for seal in seals)

    def _has_password(self, entry: _Entry, user: User) -> bool:
        seals = (_sealed(key, entry.device, user).password_seal for key in self._keys().keys)
        return any(hmac.compare_digest(seal, entry.password_seal) for seal in seals)


def _sealed(key: Key, device: str, user: User) -> _Entry:
    # Secrets of their own: no seal can ever be the other one or the signature of a token, or the other way round.
    account = f"{device}\n{username_key(user.username)}"
    return _Entry(
        device,
        _seal(key.derive("device"), account),
        _seal(key.derive("device-password"), f"{account}\n{user.password_hash}"),
    )


def _seal(secret: bytes, text: str) -> str:
    digest = hmac.new(secret, text.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
