"""Signing keys: the newest whose time has come signs, all that are not retired verify."""

import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, get_args

import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import Algorithm as JWTAlgorithm
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError
from jwt.utils import base64url_encode

from tornado_ds.errors import KeyRingError

Algorithm = Literal["HS256", "EdDSA", "ES256", "RS256"]

_ALGORITHMS: dict[str, JWTAlgorithm] = {
    "HS256": HMACAlgorithm(HMACAlgorithm.SHA256),
    "EdDSA": OKPAlgorithm(),
    "ES256": ECAlgorithm(ECAlgorithm.SHA256),
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
}

# The end of the year 9999: later ones cannot be shown to people.
_LAST_MOMENT = 253_402_300_799


@dataclass(frozen=True, slots=True)
class Key:
    """
    One signing key.

    *header* is the first segment of every token it signs, byte for byte.
    Times are seconds since the epoch; before *signs_from* it only verifies.
    """

    kid: str
    algorithm: Algorithm
    created_at: int
    signs_from: int
    retired_at: int | None
    header: str
    # Not all kinds can be compared; the public halves can, and say as much.
    _private: Any = field(repr=False, compare=False)
    _public: Any = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """Return the raw signature of *message* (RFC 7515, section 5.1)."""
        return _ALGORITHMS[self.algorithm].sign(message, self._private)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """True if *signature* is ours for *message*; never raises."""
        if self.algorithm == "HS256":
            # What PyJWT does, in one call: this is asked for every connection.
            return hmac.compare_digest(hmac.digest(self._public, message, "sha256"), signature)
        return bool(_ALGORITHMS[self.algorithm].verify(message, self._public, signature))

    def derive(self, purpose: str) -> bytes:
        """Return a secret for *purpose*, which tells nothing about this key or those of other purposes (RFC 5869)."""
        secret = (
            self._private
            if self.algorithm == "HS256"
            else self._private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        )
        return HKDF(SHA256(), length=32, salt=None, info=f"tornado_ds {purpose}".encode()).derive(secret)

    def public_jwk(self) -> dict[str, Any] | None:
        """Return the public half as a JWK (RFC 7517, section 4), None for a shared secret."""
        if self.algorithm == "HS256":
            return None
        jwk = _ALGORITHMS[self.algorithm].to_jwk(self._public, as_dict=True)
        return {**jwk, "kid": self.kid, "alg": self.algorithm, "use": "sig"}


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys of one algorithm that are not retired, oldest first; never empty."""

    keys: Sequence[Key]

    @property
    def oldest_key(self) -> Key:
        return self.keys[0]

    def signing_key_at(self, now: float) -> Key:
        """Return the newest key whose time has come; the oldest, should the clock be behind them all."""
        return next((key for key in reversed(self.keys) if key.signs_from <= now), self.oldest_key)

    def signs_until(self, key: Key) -> int | None:
        """Return when a newer key takes over from *key* (seconds since the epoch), None if none does."""
        newer = self.keys[self.keys.index(key) + 1 :]
        return min((each.signs_from for each in newer), default=None)

    def by_header(self) -> dict[str, Key]:
        """Return the keys by the only token header that each accepts."""
        return {key.header: key for key in self.keys}

    def jwks(self) -> dict[str, Any]:
        """Return the public keys as a JWK set, empty for HS256."""
        return {"keys": [jwk for key in self.keys if (jwk := key.public_jwk()) is not None]}


def new_jwk(algorithm: Algorithm, *, now: int, signs_from: int) -> dict[str, Any]:
    """Return a new key as it is stored: a private JWK with our members beside it."""
    return {
        **_generate(algorithm),
        "kid": secrets.token_hex(8),
        "alg": algorithm,
        "created_at": now,
        "signs_from": signs_from,
        "retired_at": None,
    }


def key_from_jwk(jwk: dict[str, Any]) -> Key:
    """
    Return the key that *jwk*, made by `new_jwk`, stands for.

    Raises:
        KeyRingError: It cannot be used.
    """
    try:
        return _parse(orjson.dumps(jwk))
    except (PyJWTError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise KeyRingError("it holds a key that is none of ours") from exc


# Who follows a key file reads it every second, and to check an RSA key takes 50 ms.
@lru_cache(64)
def _parse(text: bytes) -> Key:
    jwk = orjson.loads(text)
    algorithm, kid, retired_at = jwk["alg"], str(jwk["kid"]), jwk["retired_at"]
    if algorithm not in get_args(Algorithm):
        raise KeyRingError(f"it holds a key for {algorithm!a}, which this version has not")
    private = _ALGORITHMS[algorithm].from_jwk(jwk)
    if _ALGORITHMS[algorithm].check_key_length(private):
        raise KeyRingError("it holds a key that is too short to be safe")
    return Key(
        kid=kid,
        algorithm=algorithm,
        created_at=_moment(jwk["created_at"]),
        # The first version wrote none: its keys signed from their beginning.
        signs_from=_moment(jwk.get("signs_from", jwk["created_at"])),
        retired_at=None if retired_at is None else _moment(retired_at),
        header=_header(algorithm, kid),
        _private=private,
        _public=private if algorithm == "HS256" else private.public_key(),
    )


def _moment(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _LAST_MOMENT:
        raise ValueError("no moment")
    return value


def _generate(algorithm: Algorithm) -> dict[str, Any]:
    if algorithm == "HS256":
        return HMACAlgorithm.to_jwk(secrets.token_bytes(32), as_dict=True)
    if algorithm == "EdDSA":
        return OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate(), as_dict=True)
    if algorithm == "ES256":
        return ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)
    return RSAAlgorithm.to_jwk(rsa.generate_private_key(public_exponent=65537, key_size=2048), as_dict=True)


def _header(algorithm: str, kid: str) -> str:
    header = json.dumps({"alg": algorithm, "kid": kid, "typ": "JWT"}, separators=(",", ":"))
    return base64url_encode(header.encode()).decode()
