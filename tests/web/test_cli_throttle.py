"""`throttle list` and `throttle clear`, beside a server or without one."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands import complaint
from tests.postgresql import run_now
from tornado_ds import cli
from tornado_ds.app import open_services
from tornado_ds.settings import Settings
from tornado_ds.throttle import Source


@pytest.fixture
def settings(sqlite_file: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings in the environment, where commands find them."""
    variables = {
        "DATA_DIR": str(sqlite_file.parent),
        "DATABASE_URL": f"sqlite:///{sqlite_file}",
        "PASSWORDS__BCRYPT_COST": "4",
        "PASSWORDS__ALLOW_WEAK_COST": "true",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"TORNADO_DS_{name}", value)
    return Settings()


@pytest.fixture(autouse=True)
def _failures(settings: Settings) -> None:
    """Alice is under attack, from one address and at her own browser; nobody and eve were tried once."""

    async def run() -> None:
        async with open_services(settings) as services:
            alice = await services.accounts.add("Alice", "correct horse battery staple")
            await services.accounts.add("bob", "correct horse battery staple")
            throttle = services.throttle
            here, device = Source(address="2001:db8::1"), Source(device="firefox")
            for _ in range(5):
                await throttle.count(throttle.attempt("alice", here, user=alice))
            await throttle.count(throttle.attempt("alice", device, user=alice))
            for name in ("nobody", "eve"):
                await throttle.count(throttle.attempt(name, user=None))

    run_now(run)


def run(*arguments: str) -> int:
    """Run one command."""
    return cli.run(["throttle", *arguments])


def listed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return what `throttle list` shows."""
    assert run("list", "--json") == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def test_list_shows_failures_by_account_device_and_address(capsys: pytest.CaptureFixture[str]) -> None:
    """Names are shown of users who exist; the others cannot be, for nobody stored them."""
    rows = listed(capsys)

    assert [(row["kind"], row["who"], row["failures"]) for row in rows[:2]] == [
        ("account", "Alice", 5),
        ("address", "2001:db8::/64", 5),
    ]
    assert sorted((row["kind"], row["who"].rpartition(" ")[0], row["username"]) for row in rows[2:]) == [
        ("account", "unknown name", None),
        ("account", "unknown name", None),
        ("device", "", "Alice"),
    ]


def test_list_prints_a_table_of_as_many_as_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """The first line names the columns."""
    code = run("list", "--limit", "1")

    header, row = capsys.readouterr().out.splitlines()
    assert code == 0
    assert header.split() == ["kind", "who", "failures", "wait", "seconds", "blocked", "until", "expires", "at"]
    assert row.split()[:3] == ["account", "Alice", "5"]


@pytest.mark.parametrize(
    ("expected", "arguments"),
    [
        pytest.param(2, ["alice"], id="user-and-devices"),
        pytest.param(1, ["nobody"], id="name-that-nobody-has"),
        pytest.param(0, ["bob"], id="nothing-to-clear"),
        pytest.param(0, ["--address", "192.0.2.1"], id="nothing-from-there"),
        pytest.param(0, ["--address", "unix"], id="nothing-from-unix-sockets"),
        pytest.param(1, ["--address", "2001:db8::ffff"], id="address"),
        pytest.param(1, ["--address", "2001:db8::/64"], id="network-as-listed"),
        pytest.param(5, ["--everybody"], id="everybody"),
    ],
)
def test_clear_forgets_the_failures_that_are_named(
    capsys: pytest.CaptureFixture[str], expected: int, arguments: list[str]
) -> None:
    """It says how many counters there were, and the others stay."""
    code = run("clear", *arguments, "--json")

    assert code == 0
    assert json.loads(capsys.readouterr().out) == {"cleared": expected}
    assert len(listed(capsys)) == 5 - expected


def test_clear_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    """One counter is not one counters."""
    run("clear", "nobody")
    run("clear", "alice")

    assert capsys.readouterr().out.splitlines() == ["Cleared 1 counter.", "Cleared 2 counters."]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="nothing"),
        pytest.param(["alice", "--everybody"], id="user-and-everybody"),
        pytest.param(["alice", "--address", "192.0.2.1"], id="user-and-address"),
    ],
)
def test_clear_fails_in_one_line_unless_one_thing_is_named(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Nothing is cleared by accident."""
    code = run("clear", *arguments)

    output = capsys.readouterr()
    assert code == 1
    assert output.err == "error: name one of: a user, --address ADDRESS, --everybody\n"
    assert len(listed(capsys)) == 5


@pytest.mark.parametrize(
    ("expected", "arguments"),
    [
        pytest.param("there is no user 'mallory'", ["mallory"], id="mistyped-name"),
        pytest.param("there is no user 'a\\nb'", ["a\nb"], id="no-name"),
        pytest.param("'alice' is not what failures are counted by", ["--address", "alice"], id="mistyped-address"),
        pytest.param("'2001:db8::/32' is not what", ["--address", "2001:db8::/32"], id="larger-network"),
        pytest.param("'192.0.2.0/24' is not what", ["--address", "192.0.2.0/24"], id="network"),
        pytest.param("'192.0.2.1/x' is not what", ["--address", "192.0.2.1/x"], id="no-network"),
    ],
)
def test_clear_fails_when_it_is_mistyped(
    capsys: pytest.CaptureFixture[str], expected: str, arguments: list[str]
) -> None:
    """Whoever is told that it went well looks no further, and somebody stays locked out."""
    said = complaint(capsys, "throttle", "clear", *arguments)

    assert said.startswith(expected)
    assert len(listed(capsys)) == 5


@pytest.mark.parametrize("command", ["list", "clear"])
def test_help_shows_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """A line that can be pasted."""
    run(command, "--help")

    assert f"Example: python -m tornado_ds throttle {command} " in capsys.readouterr().out
