"""A server that follows its key file, whatever happens to the file."""

import asyncio
import os
from collections.abc import Callable, MutableMapping
from pathlib import Path, PosixPath
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.fakes import ManualClock
from tornado_ds.errors import InvalidTokenError
from tornado_ds.key_file import add_key, open_key_ring, retire_key
from tornado_ds.key_follower import KeyFollower
from tornado_ds.keys import Algorithm
from tornado_ds.tokens import Claims, TokenService


@pytest.fixture
def key_file(tmp_path: Path, clock: ManualClock) -> Path:
    """A key file with one key."""
    file = tmp_path / "keys.json"
    open_key_ring(file, "HS256", now=int(clock.now()))
    return file


@pytest.fixture
def tokens(key_file: Path, clock: ManualClock) -> TokenService:
    """The tokens of a server that started with that file."""
    keys = open_key_ring(key_file, "HS256", now=int(clock.now()))
    return TokenService(keys, clock=clock, issuer="tornado_ds", audience="deepstream")


@pytest.fixture
def follower(key_file: Path, tokens: TokenService) -> KeyFollower:
    """What keeps `tokens` at the file."""
    return KeyFollower(key_file, "HS256", tokens=tokens)


class SlowFollower(KeyFollower):
    """One that would not look within a test by itself, and says when it has looked."""

    INTERVAL_SECONDS = 3600.0

    def __init__(self, path: Path, algorithm: Algorithm, *, tokens: TokenService) -> None:
        super().__init__(path, algorithm, tokens=tokens)
        self.looked = asyncio.Event()

    async def look(self) -> None:
        await super().look()
        self.looked.set()


class StumblingPath(PosixPath):
    """A path at which nobody can look, for a reason that nobody thought of."""

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        raise RuntimeError("can't start new thread")


def look(follower: KeyFollower) -> list[tuple[str, str]]:
    """Look at the file once, and return what was logged."""
    with capture_logs() as logs:
        asyncio.run(follower.look())
    return [_short(entry) for entry in logs]


def _short(entry: MutableMapping[str, Any]) -> tuple[str, str]:
    return entry["log_level"], entry["event"]


def test_look_takes_over_a_key_that_was_added_and_one_that_was_retired(
    follower: KeyFollower, key_file: Path, tokens: TokenService, claims: Claims, clock: ManualClock
) -> None:
    """No signal and no restart is needed, and nothing is logged when nothing has changed."""
    now = int(clock.now())
    first = tokens.issue(claims)

    unchanged = look(follower)
    new = add_key(key_file, "HS256", now=now, delay=0)
    added = look(follower)
    second = tokens.issue(claims)
    both = [tokens.verify(token).sid for token in (first, second)]
    retire_key(key_file, tokens.keys.oldest_key.kid, "HS256", now=now)
    retired = look(follower)

    assert unchanged == []
    assert added == retired == [("info", "keys reloaded")]
    assert second.startswith(f"{new.header}.")
    assert both == [claims.sid] * 2
    assert tokens.verify(second) == claims
    with pytest.raises(InvalidTokenError):
        tokens.verify(first)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda file: file.unlink(), id="removed"),
        pytest.param(lambda file: file.write_bytes(b""), id="empty"),
        pytest.param(lambda file: file.write_bytes(file.read_bytes()[:-20]), id="half-written"),
        pytest.param(lambda file: file.write_bytes(b'{"keys": []}'), id="no-keys"),
        pytest.param(lambda file: file.write_bytes(b"\xff" * 1000), id="garbage"),
        pytest.param(lambda file: (file.unlink(), open_key_ring(file, "HS256", now=1)), id="made-anew"),
        pytest.param(lambda file: file.chmod(0o644), id="open-to-others"),
        pytest.param(lambda file: (file.unlink(), file.mkdir(mode=0o700)), id="folder"),
        pytest.param(lambda file: (file.unlink(), file.symlink_to(file)), id="endless-link"),
    ],
)
def test_look_keeps_the_keys_when_the_file_cannot_be_used(
    follower: KeyFollower, key_file: Path, tokens: TokenService, claims: Claims, damage: Callable[[Path], object]
) -> None:
    """The server signs and verifies as before, says once what is wrong, changes nothing, and recovers by itself."""
    content, keys, token = key_file.read_bytes(), tokens.keys, tokens.issue(claims)
    damage(key_file)

    first, again = look(follower), look(follower)
    kept, verified = tokens.keys, tokens.verify(token)
    follower.hurry()
    when_asked = look(follower)
    restore(key_file, content)
    add_key(key_file, "HS256", now=1)
    recovered = look(follower)

    assert first == when_asked == [("error", "keys not reloaded")]
    assert again == []
    assert kept is keys
    assert verified == claims
    assert recovered == [("info", "keys reloaded")]
    assert len(tokens.keys.keys) == 2


def test_look_goes_on_when_something_fails_that_nobody_thought_of(key_file: Path, tokens: TokenService) -> None:
    """Nothing ends it for good: a key that is retired later has to go all the same."""
    follower, keys = KeyFollower(StumblingPath(key_file), "HS256", tokens=tokens), tokens.keys

    first, again = look(follower), look(follower)

    assert first == [("error", "keys not reloaded")]
    assert again == []
    assert tokens.keys is keys


def test_look_says_so_when_the_same_file_can_be_used_again(
    follower: KeyFollower, key_file: Path, tokens: TokenService
) -> None:
    """Whoever has read of the trouble reads of its end."""
    key_file.chmod(0o644)
    look(follower)
    key_file.chmod(0o600)

    logs = look(follower)

    assert logs == [("info", "key file can be used again")]


def test_run_looks_at_once_when_it_is_asked_to(key_file: Path, tokens: TokenService, clock: ManualClock) -> None:
    """A signal need not wait for the next turn."""
    add_key(key_file, "HS256", now=int(clock.now()))
    follower = SlowFollower(key_file, "HS256", tokens=tokens)

    async def run() -> None:
        task = asyncio.create_task(follower.run())
        follower.hurry()
        await asyncio.wait_for(follower.looked.wait(), 10)
        task.cancel()

    asyncio.run(run())

    assert len(tokens.keys.keys) == 2


def restore(key_file: Path, content: bytes) -> None:
    """Put the file back as it was."""
    if key_file.is_dir():
        key_file.rmdir()
    key_file.unlink(missing_ok=True)
    key_file.touch(mode=0o600)
    key_file.write_bytes(content)
