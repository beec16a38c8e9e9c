"""Tokens that nobody issued: made from an honest one, in every family that is known."""

import hashlib
import hmac
import json
import random
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tornado_ds.keys import Key
from tornado_ds.tokens import MAX_TOKEN_BYTES

Payload = dict[str, Any]

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_ODD = ["=", ".", "+", "/", " ", "\t", "%", "\0", "\n", "é", "\uff21", "\ud800", "\u202e"]
_WRONG_TYPES: list[Any] = ["1800000000", 1.8e9, True, False, None, [], {}, "", 10**30, -1]


@dataclass(frozen=True, slots=True)
class Forgery:
    """A token that must not be accepted, and the family that it is of."""

    family: str
    token: str


def forgeries(honest: str, key: Key, *, seed: int = 1) -> Iterator[Forgery]:
    """Yield forgeries of *honest*, which *key* has signed, of all families in turn and without end."""
    dice = random.Random(seed)
    forge = _Forge(honest, key, dice)
    seen = {honest}
    while True:
        for family, make in forge.families.items():
            token = make()
            if token not in seen:
                seen.add(token)
                yield Forgery(family, token)


def encode(raw: bytes | object) -> str:
    """Base64url without padding, of bytes or of a value as JSON."""
    raw = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Return what is behind base64url without padding."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def sid_of(token: str) -> str:
    """Return the session that *token* is of, without a look at its signature."""
    return str(json.loads(decode(token.split(".")[1]))["sid"])


def sign(key: Key, payload: bytes | object, *, header: str | None = None) -> str:
    """A token that is really signed by *key*, whatever it says."""
    message = f"{key.header if header is None else header}.{encode(payload)}"
    return f"{message}.{encode(key.sign(message.encode()))}"


def sign_with_hmac(secret: bytes, header: str, payload: str) -> str:
    """A token with an HMAC for a signature."""
    message = f"{header}.{payload}"
    return f"{message}.{encode(hmac.new(secret, message.encode(), hashlib.sha256).digest())}"


def public_keys_as_bytes(key: Key) -> list[bytes]:
    """Every spelling of the public half that could be mistaken for a secret."""
    jwk = key.public_jwk()
    assert jwk is not None
    readers: dict[str, Any] = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm}
    public = readers[jwk["kty"]].from_jwk(jwk)
    return [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).strip(),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(jwk).encode(),
        jwk.get("x", jwk.get("n", "")).encode(),
        b"",
    ]


class _Forge:
    def __init__(self, honest: str, key: Key, dice: random.Random) -> None:
        self._honest = honest
        self._key = key
        self._dice = dice
        self._header, self._payload, self._signature = honest.split(".")
        self._claims: Payload = json.loads(decode(self._payload))
        self._secrets = [b"", key.kid.encode()] if key.algorithm == "HS256" else public_keys_as_bytes(key)
        self.families: dict[str, Callable[[], str]] = {
            "flipped bit": self._flipped_bit,
            "other letter": self._other_letter,
            "cut or lengthened": self._other_length,
            "algorithm none, blank or relabelled": self._other_algorithm,
            "public key or nothing as HMAC secret": self._hmac,
            "extra header fields": self._other_header,
            "two, four or five segments": self._other_segments,
            "padding, line breaks, non-ASCII": self._odd_character,
            "over 4096 bytes": self._too_long,
            "claims of a wrong type": self._wrong_type,
            "claims missing or too many": self._other_claims,
            "wrong iss or aud": self._other_place,
            "expired": self._expired,
            "payload no JSON object": self._no_object,
            "random": self._random,
        }

    def _flipped_bit(self) -> str:
        segments = [bytearray(decode(segment)) for segment in self._honest.split(".")]
        segment = self._dice.choice(segments)
        segment[self._dice.randrange(len(segment))] ^= 1 << self._dice.randrange(8)
        return ".".join(encode(bytes(each)) for each in segments)

    def _other_letter(self) -> str:
        place = self._dice.randrange(len(self._honest))
        return self._honest[:place] + self._dice.choice(_ALPHABET) + self._honest[place + 1 :]

    def _other_length(self) -> str:
        if self._dice.random() < 0.5:
            return self._honest[: self._dice.randrange(len(self._honest))]
        return self._honest + self._dice.choice(_ALPHABET) * self._dice.randint(1, 40)

    def _other_algorithm(self) -> str:
        algorithm = self._dice.choice(["none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "RS256", "ES256"])
        header = self._labelled(alg=algorithm)
        if header == self._key.header:
            header = self._labelled(alg=algorithm.lower())
        signature = self._dice.choice(["", self._signature, encode(b"\0" * 64), encode(self._dice.randbytes(32))])
        return self._dice.choice(
            [f"{header}.{self._payload}.{signature}", sign(self._key, self._claims, header=header)]
        )

    def _hmac(self) -> str:
        header = self._dice.choice([self._key.header, self._labelled(alg="HS256")])
        claims = self._claims | {"sub": self._dice.choice(["admin", "root", self._claims["sub"]])}
        return sign_with_hmac(self._dice.choice(self._secrets), header, encode(claims))

    def _other_header(self) -> str:
        name, value = self._dice.choice(
            [
                ("crit", ["b64"]),
                ("b64", False),
                ("jku", "https://evil.example/jwks.json"),
                ("x5u", "https://evil.example/x"),
                ("jwk", {"kty": "oct", "k": encode(self._dice.randbytes(32))}),
                ("kid", self._dice.choice(["", "../../dev/null", "' OR 1=1 --", ["x"], None])),
                ("zip", "DEF"),
                ("cty", "JWT"),
                ("x", self._dice.random()),
            ]
        )
        return sign(self._key, self._claims, header=self._labelled(**{name: value}))

    def _other_segments(self) -> str:
        parts = self._honest.split(".")
        extra = self._dice.choice(["", "A", self._payload, self._signature, encode(self._dice.randbytes(8))])
        return self._dice.choice(
            [
                ".".join(parts[:2]),
                ".".join([*parts, extra]),
                ".".join([extra, *parts]),
                ".".join([*parts, extra, extra]),
                ".".join([parts[0], "", parts[2]]),
                f"{parts[0]}.{extra}.{parts[2]}",
            ]
        )

    def _odd_character(self) -> str:
        end = len(self._honest)
        place = self._dice.choice([self._dice.randrange(1, end), end, 0])
        # Around the value of a cookie, blanks are no part of it (RFC 6265, section 5.2).
        characters = _ODD if 0 < place < end else [each for each in _ODD if each not in " \t"]
        return self._honest[:place] + self._dice.choice(characters) * self._dice.randint(1, 2) + self._honest[place:]

    def _too_long(self) -> str:
        padding = "x" * (MAX_TOKEN_BYTES + self._dice.randrange(20_000))
        return self._dice.choice(
            [self._honest + padding, sign(self._key, self._claims | {"client_data": {"x": padding}})]
        )

    def _wrong_type(self) -> str:
        name = self._dice.choice(sorted(self._claims))
        honest = self._claims[name]
        wrong = [value for value in _WRONG_TYPES if type(value) is not type(honest) or value in ("", -1, 10**30)]
        # A negative version, or time of issue, is a number like any other: nobody but us signs.
        value = self._dice.choice([value for value in wrong if not (value == -1 and name in ("ver", "iat"))])
        return sign(self._key, self._claims | {name: _distinct(value, self._dice)})

    def _other_claims(self) -> str:
        if self._dice.random() < 0.5:
            gone = self._dice.choice(sorted(self._claims))
            return sign(self._key, {name: value for name, value in self._claims.items() if name != gone})
        return sign(self._key, self._claims | {self._dice.choice(["nbf", "jti", "admin", ""]): self._dice.random()})

    def _other_place(self) -> str:
        name = self._dice.choice(["iss", "aud"])
        value = self._dice.choice(
            [f"other-{self._dice.random()}", [self._claims[name]], self._claims[name].upper(), ""]
        )
        return sign(self._key, self._claims | {name: value})

    def _expired(self) -> str:
        return sign(self._key, self._claims | {"exp": self._dice.randrange(self._claims["iat"])})

    def _no_object(self) -> str:
        payload = self._dice.choice(
            [b"null", b"[]", b'"text"', b"{", b"[" * 2500, b"\xff\xfe{}", b'{"sub": "\\ud800"}', b""]
        )
        return sign(self._key, payload + b" " * self._dice.randrange(100))

    def _random(self) -> str:
        segments = (encode(self._dice.randbytes(self._dice.randrange(200))) for _ in range(3))
        return self._dice.choice([".".join(segments), "".join(chr(self._dice.randrange(1, 0x250)) for _ in range(50))])

    def _labelled(self, **changes: Any) -> str:
        header = {"alg": self._key.algorithm, "kid": self._key.kid, "typ": "JWT"} | changes
        return encode(json.dumps(header, separators=(",", ":")).encode())


def _distinct(value: Any, dice: random.Random) -> Any:
    """Return a value as wrong as *value*, but not always the same."""
    if isinstance(value, str) and value:
        return value + str(dice.randrange(1000))
    if isinstance(value, float):
        return value + dice.random()
    return [dice.random()] if value == [] else value
