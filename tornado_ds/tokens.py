"""Session tokens: JSON Web Tokens (RFC 7519) that only this program issues and verifies."""

import binascii
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tornado_ds.clock import Clock
from tornado_ds.errors import ExpiredTokenError, InvalidTokenError, UserDataError
from tornado_ds.keys import Key, KeyRing

MAX_TOKEN_BYTES = 4096

# Browsers drop a cookie whose name and value are longer than that together (RFC 6265bis, section 5.6).
MAX_ISSUED_BYTES = MAX_TOKEN_BYTES - len("__Host-access_token")

# Of RS256 in base64url; the others are shorter.
LONGEST_SIGNATURE = 342

_CLAIM_TYPES = {
    "iss": str,
    "aud": str,
    "sub": str,
    "sid": str,
    "ver": int,
    "iat": int,
    "exp": int,
    "server_data": dict,
    "client_data": dict,
}

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_LAST_CHARACTERS = {2: _ALPHABET[::16], 3: _ALPHABET[::4]}

# The characters of plain base64, and its padding, are no longer good: `.` never is.
_TO_BASE64 = bytes.maketrans(b"-_+/=", b"+/...")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """
    What a verified token says: who, by which session, with which data, until when.

    *username* is the token's `sub`, *version* the user's version when it was
    issued; times are whole seconds since the epoch.
    """

    username: str
    sid: str
    version: int
    issued_at: int
    expires_at: int
    server_data: Mapping[str, Any]
    client_data: Mapping[str, Any]


class TokenService:
    """Issues and verifies the tokens of one issuer, for one audience, with one algorithm."""

    def __init__(self, keys: KeyRing, *, clock: Clock, issuer: str, audience: str) -> None:
        self._clock = clock
        self._issuer = issuer
        self._audience = audience
        self._by_header: dict[str, Key] = {}
        # A plain attribute: it is read for every connection.
        self.edition = 0
        self.use(keys)

    def use(self, keys: KeyRing) -> None:
        """Sign and verify with *keys* from now on; `edition` grows if one of those before is not among them."""
        before, self._by_header = self._by_header, keys.by_header()
        self._keys = keys
        if any(self._by_header.get(header) != key for header, key in before.items()):
            self.edition += 1

    @property
    def keys(self) -> KeyRing:
        return self._keys

    def issue(self, claims: Claims) -> str:
        """
        Return a signed token that says *claims*.

        Raises:
            UserDataError: The user's name and data make it longer than a cookie may be.
        """
        key = self._keys.signing_key_at(self._clock.now())
        message = f"{key.header}.{_encode(self._payload(claims))}"
        token = f"{message}.{_encode(key.sign(message.encode()))}"
        _check_length(len(token), claims)
        return token

    def check_length(self, claims: Claims) -> None:
        """
        Accept *claims* that fit into a token, whichever algorithm signs it.

        Raises:
            UserDataError: They make it longer than a cookie may be.
        """
        header = self._keys.oldest_key.header
        _check_length(len(f"{header}.{_encode(self._payload(claims))}.") + LONGEST_SIGNATURE, claims)

    def verify(self, token: str) -> Claims:
        """
        Return the claims of *token* once signature, issuer, audience and expiry hold.

        `iat` is not compared with the clock: we are the only issuer, and a clock
        that was set back must not lock anybody out.

        Raises:
            ExpiredTokenError: The token was ours, but its time is over.
            InvalidTokenError: Anything else; the reason is for the log only.
        """
        claims = self._claims(self._verified_payload(token))
        if self.is_over(claims.expires_at):
            raise ExpiredTokenError("expired")
        return claims

    def is_over(self, expires_at: int) -> bool:
        """True once a token that expires at that moment (seconds) counts no more."""
        return expires_at <= self._clock.now()

    def _payload(self, claims: Claims) -> bytes:
        return orjson.dumps(
            {
                "iss": self._issuer,
                "aud": self._audience,
                "sub": claims.username,
                "sid": claims.sid,
                "ver": claims.version,
                "iat": claims.issued_at,
                "exp": claims.expires_at,
                "server_data": dict(claims.server_data),
                "client_data": dict(claims.client_data),
            }
        )

    def _verified_payload(self, token: str) -> bytes:
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            raise InvalidTokenError("too long, or not ASCII")
        message, _, signature = token.rpartition(".")
        header, _, payload = message.partition(".")
        # The header is compared, never parsed: that leaves no algorithm, key or
        # extension for a stranger to choose.
        key = self._by_header.get(header)
        if key is None:
            raise InvalidTokenError("not the header of one of our keys")
        if not key.verify(message.encode(), _decode(signature)):
            raise InvalidTokenError("wrong signature")
        return _decode(payload)

    def _claims(self, payload: bytes) -> Claims:
        try:
            given = orjson.loads(payload)
        except orjson.JSONDecodeError as exc:
            raise InvalidTokenError("the payload is not JSON") from exc
        # type() and not isinstance(): True is no number here.
        if type(given) is not dict or {name: type(value) for name, value in given.items()} != _CLAIM_TYPES:
            raise InvalidTokenError("wrong claims")
        if given["iss"] != self._issuer or given["aud"] != self._audience:
            raise InvalidTokenError("wrong issuer or audience")
        if not given["sub"] or not given["sid"]:
            raise InvalidTokenError("no subject, or no session")
        return Claims(
            username=given["sub"],
            sid=given["sid"],
            version=given["ver"],
            issued_at=given["iat"],
            expires_at=given["exp"],
            server_data=given["server_data"],
            client_data=given["client_data"],
        )


def _check_length(length: int, claims: Claims) -> None:
    if length > MAX_ISSUED_BYTES:
        raise UserDataError(
            f"the token of {claims.username!a} would have {length} bytes, and a cookie takes {MAX_ISSUED_BYTES}: "
            "give that user less data"
        )


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    """Decode base64url (RFC 7515, appendix C), refusing every spelling but the canonical one."""
    rest = len(text) % 4
    # The last character of a segment holds bits that mean nothing, and must be zero.
    if rest == 1 or (rest and text[-1] not in _LAST_CHARACTERS[rest]):
        raise InvalidTokenError("not canonical base64url")
    try:
        return binascii.a2b_base64(text.encode().translate(_TO_BASE64) + b"=" * (-rest % 4), strict_mode=True)
    except ValueError as exc:
        raise InvalidTokenError("not base64url") from exc
