"""`keys list`, `keys rotate` and `keys retire`, beside a server or without one."""

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import pytest

from tests.commands import complaint, with_services
from tests.fakes import ManualClock
from tests.web.conftest import Keyboard
from tornado_ds import cli
from tornado_ds.clock import iso
from tornado_ds.key_file import add_key, open_key_ring, read_keys, retire_key
from tornado_ds.keys import Key
from tornado_ds.services import Services
from tornado_ds.sessions import OpenSession, Session
from tornado_ds.settings import Settings
from tornado_ds.users import User

HOUR = 3600


@pytest.fixture
def settings(command_settings: Settings) -> Settings:
    """Settings in the environment, where commands find them; there is no key yet."""
    command_settings.key_file.unlink()
    return command_settings


@pytest.fixture
def now() -> int:
    """This moment; commands know no other."""
    return int(time.time())


@pytest.fixture
def keys(settings: Settings, now: int) -> Sequence[Key]:
    """A key that was rotated an hour ago, and the one that has signed since."""
    old = open_key_ring(settings.key_file, "HS256", now=now - 3 * HOUR).oldest_key
    return [old, add_key(settings.key_file, "HS256", now=now - HOUR, delay=0)]


@pytest.fixture
def sessions(settings: Settings, keys: Sequence[Key], now: int) -> dict[str, OpenSession]:
    """Sessions of alice: two whose tokens the old key has signed, one that was renewed since, and a new one."""
    clock = ManualClock(now - 2 * HOUR)

    async def prepare(services: Services) -> dict[str, OpenSession]:
        alice = await services.accounts.add("alice", "correct horse battery staple")
        opened = {name: await services.sessions.open(alice) for name in ("old", "renewed")}
        opened["backend"] = await services.sessions.open(alice, lifetime=90 * 86400, label="backend")
        clock.advance(1.5 * HOUR)
        opened["renewed"] = await services.sessions.renew(opened["renewed"].session.sid, alice)
        opened["new"] = await services.sessions.open(alice)
        return opened

    return with_services(settings, prepare, clock=clock)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run one command that does what it should, and return what it prints."""
    code = cli.run(["keys", *arguments])

    output = capsys.readouterr()
    assert (0, "") == (code, output.err)
    return output.out


def live(settings: Settings) -> set[str]:
    """The ids of the sessions that live."""

    async def sids(services: Services) -> set[str]:
        listed: Sequence[Session] = await services.sessions.list()
        return {session.sid for session in listed}

    return with_services(settings, sids)


def test_list_says_what_each_key_is_good_for(
    settings: Settings, keys: Sequence[Key], now: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each state that a key can be in, oldest key first, with times that people can read."""
    gone = add_key(settings.key_file, "HS256", now=now - 60, delay=HOUR)
    retire_key(settings.key_file, gone.kid, "HS256", now=now - 30)
    add_key(settings.key_file, "EdDSA", now=now - 20)
    coming = add_key(settings.key_file, "HS256", now=now, delay=HOUR)

    rows = json.loads(run(capsys, "list", "--json"))

    assert ["verifying", "signing", "retired", "unused", "next"] == [row["state"] for row in rows]
    assert [key.kid for key in read_keys(settings.key_file)] == [row["kid"] for row in rows]
    assert ["HS256", "HS256", "HS256", "EdDSA", "HS256"] == [row["algorithm"] for row in rows]
    assert [None, None, iso(now - 30), None, None] == [row["retired_at"] for row in rows]
    assert (iso(now), iso(now + HOUR)) == (rows[-1]["created_at"], rows[-1]["signs_from"])
    assert coming.kid == rows[-1]["kid"]


@pytest.mark.parametrize("arguments", [[], ["--json"]], ids=["table", "json"])
@pytest.mark.parametrize("algorithm", ["HS256", "EdDSA", "ES256", "RS256"])
def test_list_shows_nothing_that_a_key_is_made_of(
    settings: Settings, capsys: pytest.CaptureFixture[str], algorithm: Any, arguments: list[str]
) -> None:
    """What is on the screen may be in a photograph."""
    add_key(settings.key_file, algorithm, now=1)
    [jwk] = json.loads(settings.key_file.read_text())["keys"]
    shown = {"kid", "alg", "created_at", "signs_from", "retired_at"}

    printed = run(capsys, "list", *arguments)

    material = [value for name, value in jwk.items() if name not in shown and len(str(value)) > 20]
    assert material
    assert jwk["kid"] in printed
    assert not [value for value in material if value in printed]


def test_list_says_so_when_there_are_no_keys(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Looking makes none."""
    assert run(capsys, "list") == "There are no keys: a start of the server makes one.\n"
    assert run(capsys, "list", "--json") == "[]\n"
    assert not settings.key_file.exists()


@pytest.mark.parametrize(
    ("delay", "arguments"), [pytest.param(10, [], id="default"), pytest.param(600, ["--after", "10m"], id="later")]
)
def test_rotate_adds_a_key_that_signs_in_a_moment(
    settings: Settings,
    keys: Sequence[Key],
    now: int,
    capsys: pytest.CaptureFixture[str],
    delay: int,
    arguments: list[str],
) -> None:
    """The one before goes on until all nodes know the new one, and is kept after that."""
    row = json.loads(run(capsys, "rotate", "--json", *arguments))

    *before, new = read_keys(settings.key_file)
    assert keys == before
    assert ("next", new.kid, iso(new.signs_from)) == (row["state"], row["kid"], row["signs_from"])
    assert new.created_at >= now
    assert delay == new.signs_from - new.created_at


def test_rotate_says_when_the_new_key_signs(
    settings: Settings, keys: Sequence[Key], capsys: pytest.CaptureFixture[str]
) -> None:
    """And that nobody is logged out by it."""
    printed = run(capsys, "rotate")

    new = read_keys(settings.key_file)[-1]
    assert printed.splitlines() == [
        f"The key {new.kid} signs from {iso(new.signs_from)} on.",
        "Tokens of older keys stay good until `keys retire`.",
    ]


@pytest.mark.parametrize("after", ["soon", "-1", "", "4000d"])
def test_rotate_adds_nothing_when_the_time_is_none(
    settings: Settings, keys: Sequence[Key], capsys: pytest.CaptureFixture[str], after: str
) -> None:
    """The line says what a time looks like, or which one is the longest."""
    said = complaint(capsys, "keys", "rotate", f"--after={after}")

    assert "is no time; write 90d, 12h, 30m or 45s" in said or "3650d is the longest" in said
    assert keys == read_keys(settings.key_file)


def test_retire_asks_nothing_when_nobody_has_a_token_of_the_key(
    settings: Settings, keys: Sequence[Key], capsys: pytest.CaptureFixture[str]
) -> None:
    """That is the usual way: rotate, wait, retire."""
    old, new = keys

    printed = run(capsys, "retire", old.kid)

    assert printed == f"The key {old.kid} is retired; 0 sessions ended.\n"
    assert [False, True] == [key.retired_at is None for key in read_keys(settings.key_file)]
    assert new == read_keys(settings.key_file)[1]


def test_retire_ends_the_sessions_whose_tokens_the_key_has_signed(
    settings: Settings, keys: Sequence[Key], sessions: dict[str, OpenSession], capsys: pytest.CaptureFixture[str]
) -> None:
    """Live connections of theirs close too; the others go on."""
    row = json.loads(run(capsys, "retire", keys[0].kid, "--yes", "--json"))

    assert (keys[0].kid, "retired", 2) == (row["kid"], row["state"], row["ended"])
    assert {sessions[name].session.sid for name in ("renewed", "new")} == live(settings)


def test_retire_says_when_it_is_safe_when_it_is_not(
    settings: Settings, keys: Sequence[Key], sessions: dict[str, OpenSession], capsys: pytest.CaptureFixture[str]
) -> None:
    """A script has to say that it means it."""
    last = iso(sessions["backend"].claims.expires_at)

    said = complaint(capsys, "keys", "retire", keys[0].kid)

    assert said == f"2 sessions with a token of the key {keys[0].kid} would end; after {last} it is safe: " + (
        "wait, or say --yes"
    )
    assert keys == read_keys(settings.key_file)
    assert len(live(settings)) == 4


@pytest.mark.parametrize(("answer", "is_retired"), [("y\n", True), ("n\n", False)], ids=["yes", "no"])
def test_retire_asks_at_a_terminal(
    settings: Settings,
    keys: Sequence[Key],
    sessions: dict[str, OpenSession],
    capsys: pytest.CaptureFixture[str],
    keyboard: Keyboard,
    answer: str,
    is_retired: bool,
) -> None:
    """Whoever is asked knows how many sessions it is about."""
    keyboard(answer)

    code = cli.run(["keys", "retire", keys[0].kid])

    asked = capsys.readouterr().err
    assert asked.startswith(f"2 sessions with a token of the key {keys[0].kid} would end; after ")
    assert "Retire it now? [y/N]:" in asked
    assert (0 if is_retired else 1) == code
    assert is_retired == (read_keys(settings.key_file)[0].retired_at is not None)
    assert (2 if is_retired else 4) == len(live(settings))


@pytest.mark.parametrize(
    ("kid_of", "expected"),
    [
        pytest.param(lambda keys: "nobody", "there is no key 'nobody'; `keys list` shows them", id="unknown"),
        pytest.param(
            lambda keys: keys[1].kid,
            "the key {kid} signs: `keys rotate` first, and retire it once the new key signs",
            id="signing",
        ),
    ],
)
def test_retire_refuses_a_key_that_is_needed_or_not_there(
    settings: Settings,
    keys: Sequence[Key],
    capsys: pytest.CaptureFixture[str],
    kid_of: Callable[[Sequence[Key]], str],
    expected: str,
) -> None:
    """Not even --yes takes the key that signs."""
    kid = kid_of(keys)

    said = complaint(capsys, "keys", "retire", kid, "--yes")

    assert expected.format(kid=kid) == said
    assert keys == read_keys(settings.key_file)


def test_retire_can_be_repeated_when_the_database_was_locked(
    settings: Settings,
    keys: Sequence[Key],
    sessions: dict[str, OpenSession],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A key that was retired without its sessions would leave live connections, and nothing would end them."""
    with monkeypatch.context() as patch, closing(sqlite3.connect(settings.sqlite_path, isolation_level=None)) as other:
        patch.setattr("tornado_ds.cli.common.COMMAND_SECONDS", 0.3)
        other.execute("BEGIN IMMEDIATE")
        said = complaint(capsys, "keys", "retire", keys[0].kid, "--yes")
        kept = read_keys(settings.key_file)
    done = json.loads(run(capsys, "retire", keys[0].kid, "--yes", "--json"))

    assert said == "the database failed: database is locked"
    assert list(keys) == list(kept)
    assert (done["state"], done["ended"]) == ("retired", 2)


@pytest.mark.parametrize("command", [["list"], ["rotate"], ["retire", "x"]], ids=" ".join)
def test_commands_fail_in_one_line_when_the_file_cannot_be_used(
    settings: Settings, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """It stays as it is, for somebody to mend it."""
    settings.key_file.touch(mode=0o600)

    said = complaint(capsys, "keys", *command)

    assert str(settings.key_file) in said
    assert settings.key_file.read_bytes() == b""


def test_new_key_is_of_the_algorithm_that_is_set(
    settings: Settings, keys: Sequence[Key], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys of the other one are unused, and can go without a question."""
    monkeypatch.setenv("TORNADO_DS_TOKEN__ALGORITHM", "EdDSA")

    new = json.loads(run(capsys, "rotate", "--json"))
    retired = json.loads(run(capsys, "retire", keys[1].kid, "--json"))

    assert ("EdDSA", "signing") == (new["algorithm"], new["state"])
    assert ("HS256", "retired", 0) == (retired["algorithm"], retired["state"], retired["ended"])
    assert ["unused", "retired", "signing"] == [row["state"] for row in json.loads(run(capsys, "list", "--json"))]


def test_token_of_a_command_is_signed_with_the_old_key_until_the_new_one_signs(
    settings: Settings, keys: Sequence[Key], sessions: dict[str, OpenSession], capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands wait like servers."""
    run(capsys, "rotate")

    async def open_session(services: Services) -> str:
        alice: User | None = await services.users.get("alice")
        assert alice is not None
        return (await services.sessions.open(alice)).token

    assert with_services(settings, open_session).startswith(f"{keys[1].header}.")
