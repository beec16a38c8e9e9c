"""The key file: a JWK set (RFC 7517) that nodes and commands share, oldest key first."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from tornado_ds.errors import KeyRingError
from tornado_ds.keys import Algorithm, Key, KeyRing, key_from_jwk, new_jwk

# How long a new key waits before it signs: servers look at the file once a second, and no
# two clocks agree. Whoever gets a token of the new key has to know that key by then.
SIGNING_DELAY_SECONDS = 10

_RESTORE = (
    "restore it (docs/backup-and-upgrade.md); if there is no backup, move it away, and everybody has to log in again"
)


def open_key_ring(path: Path, algorithm: Algorithm, *, now: int) -> KeyRing:
    """
    Return the keys for *algorithm* in the file *path*; if there is none, make one first.

    Raises:
        KeyRingError: The file cannot be read or written, is readable by others, or holds something else.
    """
    keys = _usable(path, _read(path), algorithm)
    if not keys:
        with _locked(path):
            # Another server may have made one meanwhile.
            keys = _usable(path, _read(path), algorithm) or [_append(path, algorithm, now=now, signs_from=now)]
    return KeyRing(keys)


def read_key_ring(path: Path, algorithm: Algorithm, *, in_use: Sequence[Key] = ()) -> KeyRing:
    """
    Return the keys for *algorithm* in the file *path*, and never change it.

    Raises:
        KeyRingError: There is none; one that is *in_use* is not there, not even
            as retired; or as `open_key_ring` says.
    """
    jwks = _read(path)
    keys = _usable(path, jwks, algorithm)
    if not keys:
        raise KeyRingError(f"{path} {f'holds no key for {algorithm}' if path.exists() else 'is gone'}: restore it")
    # A key goes by being retired. Without it the file is another one: an old copy, or one
    # that a command has made while ours was away.
    kids = {str(jwk.get("kid")) for jwk in jwks}
    if lost := [key.kid for key in in_use if key.kid not in kids]:
        raise KeyRingError(f"{path} lacks the key {lost[0]}, which is in use: restore it, or restart to do without")
    return KeyRing(keys)


def read_keys(path: Path) -> Sequence[Key]:
    """Return all keys in the file, retired ones too, oldest first; none if there is no file."""
    return [_key(path, jwk) for jwk in _read(path)]


def add_key(path: Path, algorithm: Algorithm, *, now: int, delay: int = SIGNING_DELAY_SECONDS) -> Key:
    """
    Add a new key to the file, made if it is not there, and return it.

    It signs from *delay* seconds after *now* on; the first one, which nobody has to hear of, at once.

    Raises:
        KeyRingError: As `open_key_ring` says.
    """
    with _locked(path):
        is_first = not _usable(path, _read(path), algorithm)
        return _append(path, algorithm, now=now, signs_from=now if is_first else now + delay)


def retire_key(path: Path, kid: str, algorithm: Algorithm, *, now: int) -> Key:
    """
    Retire the key *kid* for good, and return it as it was: no server takes its tokens any more.

    Raises:
        KeyRingError: As `check_retirement` says; nothing was changed.
    """
    with _locked(path):
        key = check_retirement(path, kid, algorithm, now=now)
        jwks = [{**jwk, "retired_at": now} if str(jwk["kid"]) == kid else jwk for jwk in _read(path)]
        _write(path, jwks)
    return key


def check_retirement(path: Path, kid: str, algorithm: Algorithm, *, now: int) -> Key:
    """
    Return the key *kid* if it can be retired.

    Raises:
        KeyRingError: There is no such key, it was retired before, or it signs.
    """
    key = next((key for key in read_keys(path) if key.kid == kid), None)
    if key is None:
        raise KeyRingError(f"there is no key {kid!a}; `keys list` shows them")
    if key.retired_at is not None:
        raise KeyRingError(f"the key {kid} was retired before")
    usable = _usable(path, _read(path), algorithm)
    if usable and key == KeyRing(usable).signing_key_at(now):
        raise KeyRingError(f"the key {kid} signs: `keys rotate` first, and retire it once the new key signs")
    return key


def _usable(path: Path, jwks: Sequence[dict[str, Any]], algorithm: Algorithm) -> list[Key]:
    keys = [_key(path, jwk) for jwk in jwks if jwk.get("retired_at") is None]
    return [key for key in keys if key.algorithm == algorithm]


def _append(path: Path, algorithm: Algorithm, *, now: int, signs_from: int) -> Key:
    jwk = new_jwk(algorithm, now=now, signs_from=signs_from)
    _write(path, [*_read(path), jwk])
    return _key(path, jwk)


def _key(path: Path, jwk: dict[str, Any]) -> Key:
    try:
        return key_from_jwk(jwk)
    except KeyRingError as exc:
        raise KeyRingError(f"{path} cannot be used: {exc}; {_RESTORE}") from exc


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        if path.stat().st_mode & 0o077:
            raise KeyRingError(f"{path} can be read by other users: chmod 600 it")
        keys = orjson.loads(path.read_bytes())["keys"]
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise KeyRingError(f"{path} cannot be read: {exc.strerror}") from exc
    except (ValueError, TypeError, KeyError) as exc:
        raise _damaged(path) from exc
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise _damaged(path)
    return keys


def _damaged(path: Path) -> KeyRingError:
    return KeyRingError(f"{path} is no key file of ours; {_RESTORE}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Nobody else changes the file meanwhile, be it from another node."""
    # A file of its own, which stays: the key file is replaced, and a lock on it would be with it.
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as exc:
        raise KeyRingError(f"{path} cannot be written: {exc.strerror}") from exc


def _write(path: Path, jwks: list[dict[str, Any]]) -> None:
    # Beside it and renamed, so that a crash leaves the old file or the new one, and
    # maybe a draft, which the next one takes the place of.
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        _give_to_owner_of(path, file.fileno())
        file.write(orjson.dumps({"keys": jwks}, option=orjson.OPT_INDENT_2))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _give_to_owner_of(path: Path, descriptor: int) -> None:
    """Let the new file belong to whom the old one does: a command of root must not take it from the server."""
    # Where there is no old one yet, or files cannot be given away, the new key is written all the same.
    with suppress(OSError):
        old = path.stat()
        os.fchown(descriptor, old.st_uid, old.st_gid)
