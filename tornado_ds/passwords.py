"""Passwords: what a good one is, bcrypt in a bounded pool of threads, and the one legacy format that we verify."""

import asyncio
import contextlib
import hashlib
import hmac
import os
import re
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import NamedTuple, TypeVar, TypeVarTuple, Unpack

import bcrypt

from tornado_ds.errors import OverloadedError, UserDataError
from tornado_ds.users import username_key

MAX_PASSWORD_BYTES = 72
MAX_WAITING = 16

# What Linux calls nice 19.
_LOWEST_PRIORITY = 19

# Each login with a dearer hash would keep a thread busy for longer than some
# four seconds: at 31, the most that bcrypt knows, for days.
MAX_COST = 16

# About as long for the legacy format. An iteration for a short key takes about
# as long as one for 64 bytes.
_MAX_LEGACY_WORK = 10**8
_SHORT_KEY = 64

# The salt's last letter carries two bits; bcrypt 5 takes it only with the others clear.
_BCRYPT = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_LEGACY = re.compile(r"\$deepstream\$([a-z0-9/-]+)\$([1-9][0-9]{0,7})\$([1-9][0-9]{0,3})\$(.+)")

# What surrounds a digest's name where Node lists it as a part of a signature.
_SIGNATURE = re.compile(r"^rsa-|^id-rsassa-pkcs1-v1_5-with-|withrsa(encryption)?$|(?<=sha1)-2$")

_Result = TypeVar("_Result")
_Args = TypeVarTuple("_Args")


class PasswordHasher:
    """
    Hashes and verifies passwords beside the event loop.

    One thread per core works, at a lower priority than the loop where the
    system allows; at most `MAX_WAITING` passwords wait, more are turned away.
    """

    def __init__(self, *, cost: int, threads: int | None = None) -> None:
        self._cost = cost
        self._threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="bcrypt", initializer=_yield_to_the_loop)
        self._pending = 0
        self._has_place = ContextVar("has_place", default=False)
        # As dear to check as a real one, and the hash of nothing that anybody knows.
        self._dummy = bcrypt.gensalt(cost) + b"." * 31

    async def hash(self, password: str) -> str:
        """
        Return a bcrypt hash of *password*, which `check_password` has accepted.

        Raises:
            OverloadedError: Too many passwords wait already.
        """
        return await self._run(self.hash_now, password)

    async def verify(self, password: str, password_hash: str | None, *, is_welcome: bool = True) -> bool:
        """
        True if *password* is the one behind *password_hash*.

        Takes the same time whether it is or not; also for None (no such user),
        for a malformed hash, and for a password that no hash can be of. With a
        hash that is cheaper than ours, a right one takes less unless *is_welcome*
        is False: for somebody who is let in, it is hashed anew after that.

        Raises:
            OverloadedError: Too many passwords wait already; nothing was tried.
        """
        return await self._run(self._verify_now, password, password_hash, is_welcome)

    def hash_now(self, password: str) -> str:
        """Return a bcrypt hash of *password*, worked out in the calling thread."""
        return bcrypt.hashpw(password.encode(), bcrypt.gensalt(self._cost)).decode()

    def needs_rehash(self, password_hash: str) -> bool:
        """True if the hash is of the legacy format, or cheaper than those we make."""
        cost = _cost_of(password_hash)
        return cost is None or cost < self._cost

    @property
    def pending(self) -> int:
        """How many passwords are being worked on or wait."""
        return self._pending

    def close(self) -> None:
        """Finish the passwords that are being worked on, forget those that wait, end the threads."""
        self._pool.shutdown(cancel_futures=True)

    @contextmanager
    def place(self) -> Iterator[None]:
        """
        A place among those who wait; what is hashed inside needs no other one.

        Taken before anything else is done for a login, so that the database sees
        no more of a flood than can be hashed.

        Raises:
            OverloadedError: All are taken.
        """
        if self._has_place.get():
            yield
            return
        if self._pending >= self._threads + MAX_WAITING:
            raise OverloadedError("too many logins at once, try again in a moment")
        self._pending += 1
        reset = self._has_place.set(True)
        try:
            yield
        finally:
            self._has_place.reset(reset)
            self._pending -= 1

    async def _run(self, work: Callable[[Unpack[_Args]], _Result], *args: *_Args) -> _Result:
        with self.place():
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    def _verify_now(self, password: str, password_hash: str | None, is_welcome: bool) -> bool:
        # Hashing costs the same whether or not the user exists, so response time
        # does not tell a stranger which names are taken.
        cost = None if password_hash is None or not can_be_hashed(password) else _cost_of(password_hash)
        if password_hash is not None and cost is not None:
            is_right = bcrypt.checkpw(password.encode(), password_hash.encode())
        else:
            bcrypt.checkpw(b"any", self._dummy)
            is_right = password_hash is not None and _is_legacy_right(password, password_hash)
        if cost is not None and not (is_right and is_welcome):
            self._pad(cost)
        return is_right

    def _pad(self, cost: int) -> None:
        """Spend what a hash of *cost* was cheaper than ours: 2^c + 2^c + 2^(c+1) ... = 2^ours."""
        for step in range(cost, self._cost):
            bcrypt.hashpw(b"any", bcrypt.gensalt(step))


def check_password(password: str, *, username: str, min_length: int) -> str:
    """
    Return *password* if it may be set for *username* (NIST SP 800-63B-4, section 3.1.1.2).

    Raises:
        UserDataError: It may not; the text says why and never holds the password.
    """
    if len(password) < min_length:
        raise UserDataError(f"the password needs at least {min_length} characters")
    if len(password.encode(errors="replace")) > MAX_PASSWORD_BYTES:
        raise UserDataError(
            f"the password may have at most {MAX_PASSWORD_BYTES} bytes: {MAX_PASSWORD_BYTES} plain letters,"
            " fewer with accents or emoji"
        )
    if not can_be_hashed(password):
        raise UserDataError(f"the password may have at most {MAX_PASSWORD_BYTES} bytes, and none of them NUL")
    if username_key(password) == username_key(username):
        raise UserDataError("the password is the username")
    if password.lower() in _common_passwords():
        raise UserDataError("the password is one that everybody tries first, choose another")
    return password


def check_password_hash(password_hash: str) -> str:
    """
    Return *password_hash* if `PasswordHasher.verify` understands it.

    Raises:
        UserDataError: It is neither bcrypt nor one from `legacy_hash`, or takes too long to verify.
    """
    match = _BCRYPT.fullmatch(password_hash)
    if match is not None and int(match[1]) > MAX_COST:
        raise UserDataError(
            f"the password hash has cost {match[1]}, which no login can wait for: {MAX_COST} is the most,"
            " so give the user a new password"
        )
    if not is_password_hash(password_hash):
        raise UserDataError("the password hash is not bcrypt ($2a$, $2b$ or $2y$ and 60 characters)")
    return password_hash


def is_password_hash(text: str) -> bool:
    """True if a password can be behind *text*."""
    return _cost_of(text) is not None or _parse_legacy(text) is not None


def can_be_hashed(password: str) -> bool:
    """True if bcrypt can hash all of *password*: it takes 72 bytes, and stops at a NUL."""
    try:
        raw = password.encode()
    except UnicodeEncodeError:
        return False
    return len(raw) <= MAX_PASSWORD_BYTES and b"\0" not in raw


def legacy_hash(stored: str, *, algorithm: str, iterations: int, key_length: int) -> str:
    """
    Return deepstream's own PBKDF2 entry *stored* with its parameters, as a hash that we verify.

    *algorithm* is a name that Node knows (`crypto.getHashes()`), such as `md5`,
    `sha512-256` or `RSA-SHA256`; *key_length* is in bytes. Read from deepstream 5.0 to 10.1, `auth: type: file`.

    Raises:
        UserDataError: The entry cannot have been made with these parameters, or takes too long to verify.
    """
    if _is_endless(iterations, key_length):
        raise UserDataError(
            f"no login can wait for {iterations} iterations of PBKDF2 for {key_length} bytes:"
            " give the user a new password"
        )
    # Python and Node both ask OpenSSL, which knows all other names.
    digest = _SIGNATURE.sub("", algorithm.lower()).replace("sha512/", "sha512-")
    wrapped = f"$deepstream${digest}${iterations}${key_length}${stored}"
    if _parse_legacy(wrapped) is None:
        raise UserDataError(
            "this is no password hash that deepstream made with"
            f" PBKDF2, {algorithm!a}, {iterations} iterations and {key_length} bytes"
        )
    return wrapped


def _is_legacy_right(password: str, password_hash: str) -> bool:
    legacy = _parse_legacy(password_hash)
    if legacy is None:
        return False
    made = hashlib.pbkdf2_hmac(
        legacy.digest, password.encode(errors="replace"), legacy.salt, legacy.iterations, len(legacy.key)
    )
    return hmac.compare_digest(made, legacy.key)


class _Legacy(NamedTuple):
    digest: str
    iterations: int
    key: bytes
    salt: bytes


def _parse_legacy(password_hash: str) -> _Legacy | None:
    """Take a hash of `legacy_hash` apart; None if no password can be behind it."""
    match = _LEGACY.fullmatch(password_hash)
    if match is None:
        return None
    digest, iterations, key_length, stored = match[1], int(match[2]), int(match[3]), match[4]
    if _is_endless(iterations, key_length):
        return None
    end = 4 * -(-key_length // 3)
    try:
        # The text of the salt was the salt, not what it decodes to.
        legacy = _Legacy(digest, iterations, b64decode(stored[:end], validate=True), stored[end:].encode())
        hashlib.pbkdf2_hmac(digest, b"any", legacy.salt, 1, 1)
    except ValueError:
        return None
    return legacy if len(legacy.key) == key_length else None


def _is_endless(iterations: int, key_length: int) -> bool:
    """True if no login can wait for so much PBKDF2."""
    return iterations * max(key_length, _SHORT_KEY) > _MAX_LEGACY_WORK


def _cost_of(password_hash: str) -> int | None:
    match = _BCRYPT.fullmatch(password_hash)
    return int(match[1]) if match is not None and 4 <= int(match[1]) <= MAX_COST else None


@cache
def _common_passwords() -> frozenset[str]:
    # Loaded when first needed: the list is large, and most runs never set a password.
    from zxcvbn.frequency_lists import FREQUENCY_LISTS

    return frozenset(FREQUENCY_LISTS["passwords"])


def _yield_to_the_loop() -> None:
    """Let the thread of the event loop go first on a machine that is full."""
    with contextlib.suppress(AttributeError, OSError):
        # Lower than the loop's own, which may have been started with a low one.
        niceness = min(_LOWEST_PRIORITY, os.getpriority(os.PRIO_PROCESS, 0) + 10)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
