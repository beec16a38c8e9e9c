"""Session tokens: JSON Web Tokens (RFC 7519) that only this program issues and verifies."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tornado_ds.clock import Clock
from tornado_ds.errors import ExpiredTokenError, InvalidTokenError, UserDataError
from tornado_ds.keys import KeyRing

MAX_TOKEN_BYTES = 4096


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
        self.use(keys)

    def use(self, keys: KeyRing) -> None:
        """Sign and verify with *keys* from now on."""
        self._keys = keys
        self._by_header = keys.by_header()

    @property
    def keys(self) -> KeyRing:
        return self._keys

    def issue(self, claims: Claims) -> str:
        """
        Return a signed token that says *claims*.

        Raises:
            UserDataError: The user's name and data make it longer than a cookie may be.
        """
        key = self._keys.signing_key
        payload = orjson.dumps(
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
        message = f"{key.header}.{_encode(payload)}"
        token = f"{message}.{_encode(key.sign(message.encode()))}"
        if len(token) > MAX_TOKEN_BYTES:
            raise UserDataError(f"the token of {claims.username!a} has {len(token)} bytes: give that user less data")
        return token

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
        if claims.expires_at <= self._clock.now():
            raise ExpiredTokenError("expired")
        return claims

    def _verified_payload(self, token: str) -> bytes:
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            raise InvalidTokenError("too long, or not ASCII")
        header, _, rest = token.partition(".")
        payload, _, signature = rest.partition(".")
        # The header is compared, never parsed: that leaves no algorithm, key or
        # extension for a stranger to choose.
        key = self._by_header.get(header)
        if key is None:
            raise InvalidTokenError("not the header of one of our keys")
        if not key.verify(f"{header}.{payload}".encode(), _decode(signature)):
            raise InvalidTokenError("wrong signature")
        return _decode(payload)

    def _claims(self, payload: bytes) -> Claims:
        try:
            match orjson.loads(payload):
                case {
                    "iss": self._issuer,
                    "aud": self._audience,
                    "sub": str(username),
                    "sid": str(sid),
                    "ver": int(version),
                    "iat": int(issued_at),
                    "exp": int(expires_at),
                    "server_data": dict(server_data),
                    "client_data": dict(client_data),
                    **others,
                } if not others and username and sid and _are_numbers(version, issued_at, expires_at):
                    return Claims(
                        username=username,
                        sid=sid,
                        version=version,
                        issued_at=issued_at,
                        expires_at=expires_at,
                        server_data=server_data,
                        client_data=client_data,
                    )
        except orjson.JSONDecodeError as exc:
            raise InvalidTokenError("the payload is not JSON") from exc
        raise InvalidTokenError("wrong issuer, audience or claims")


def _are_numbers(*values: int) -> bool:
    """True if no value is a bool, which Python counts among the integers."""
    return not any(isinstance(value, bool) for value in values)


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    """Decode base64url (RFC 7515, appendix C), refusing every spelling but the canonical one."""
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as exc:
        raise InvalidTokenError("not base64url") from exc
    if _encode(raw) != text:
        raise InvalidTokenError("not canonical base64url")
    return raw
