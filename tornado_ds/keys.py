"""The key ring: a JWK set (RFC 7517) in one file, the newest key signs, all that are not retired verify."""

import hmac
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
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


@dataclass(frozen=True, slots=True)
class Key:
    """
    One signing key.

    *header* is the first segment of every token it signs, byte for byte.
    *created_at* and *retired_at* are seconds since the epoch.
    """

    kid: str
    algorithm: Algorithm
    created_at: int
    retired_at: int | None
    header: str
    _private: Any = field(repr=False)
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
    def signing_key(self) -> Key:
        return self.keys[-1]

    def by_header(self) -> dict[str, Key]:
        """Return the keys by the only token header that each accepts."""
        return {key.header: key for key in self.keys}

    def jwks(self) -> dict[str, Any]:
        """Return the public keys as a JWK set, empty for HS256."""
        return {"keys": [jwk for key in self.keys if (jwk := key.public_jwk()) is not None]}


def open_key_ring(path: Path, algorithm: Algorithm, *, now: int) -> KeyRing:
    """
    Return the keys for *algorithm* in the file *path*; if there is none, make one first.

    Raises:
        KeyRingError: The file cannot be read or written, is readable by others, or holds something else.
    """
    keys = read_keys(path)
    usable = [key for key in keys if key.algorithm == algorithm and key.retired_at is None]
    if usable:
        return KeyRing(usable)
    return KeyRing([add_key(path, algorithm, now=now)])


def read_keys(path: Path) -> Sequence[Key]:
    """Return all keys in the file, retired ones too, oldest first; none if there is no file."""
    return [_from_jwk(path, jwk) for jwk in _read(path)]


def add_key(path: Path, algorithm: Algorithm, *, now: int) -> Key:
    """Add a new key to the file, made if it is not there, and return it; from the next start or reload it signs."""
    jwk = {
        **_generate(algorithm),
        "kid": secrets.token_hex(8),
        "alg": algorithm,
        "created_at": now,
        "retired_at": None,
    }
    _write(path, [*_read(path), jwk])
    return _from_jwk(path, jwk)


def _generate(algorithm: Algorithm) -> dict[str, Any]:
    if algorithm == "HS256":
        return HMACAlgorithm.to_jwk(secrets.token_bytes(32), as_dict=True)
    if algorithm == "EdDSA":
        return OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate(), as_dict=True)
    if algorithm == "ES256":
        return ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)
    return RSAAlgorithm.to_jwk(rsa.generate_private_key(public_exponent=65537, key_size=2048), as_dict=True)


def _from_jwk(path: Path, jwk: dict[str, Any]) -> Key:
    try:
        algorithm = jwk["alg"]
        if algorithm not in get_args(Algorithm):
            raise KeyRingError(f"{path} holds a key for {algorithm!a}, which this version has not")
        private = _ALGORITHMS[algorithm].from_jwk(jwk)
        if _ALGORITHMS[algorithm].check_key_length(private):
            raise KeyRingError(f"{path} holds a key that is too short to be safe")
        public = private if algorithm == "HS256" else private.public_key()
        return Key(
            kid=str(jwk["kid"]),
            algorithm=algorithm,
            created_at=int(jwk["created_at"]),
            retired_at=jwk["retired_at"],
            header=_header(algorithm, str(jwk["kid"])),
            _private=private,
            _public=public,
        )
    except (PyJWTError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise KeyRingError(f"{path} is not a key file of ours: restore it, or move it away to get a new one") from exc


def _header(algorithm: str, kid: str) -> str:
    header = json.dumps({"alg": algorithm, "kid": kid, "typ": "JWT"}, separators=(",", ":"))
    return base64url_encode(header.encode()).decode()


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        if path.stat().st_mode & 0o077:
            raise KeyRingError(f"{path} can be read by other users: chmod 600 it")
        keys = orjson.loads(path.read_bytes())["keys"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as exc:
        raise KeyRingError(f"{path} cannot be read as a key file: {exc}") from exc
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise KeyRingError(f"{path} is not a key file of ours")
    return keys


def _write(path: Path, jwks: list[dict[str, Any]]) -> None:
    # Written beside it and renamed, so that a crash leaves the old file or the new one.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(orjson.dumps({"keys": jwks}, option=orjson.OPT_INDENT_2))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as exc:
        raise KeyRingError(f"{path} cannot be written: {exc.strerror}") from exc
    finally:
        draft.unlink(missing_ok=True)
