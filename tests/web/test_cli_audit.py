"""`audit list`, and what the other commands leave in the audit trail."""

import io
import json
import os
import pwd
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.postgresql import run_now
from tornado_ds import cli
from tornado_ds.audit import AuditEntry
from tornado_ds.clock import iso
from tornado_ds.key_file import open_key_ring
from tornado_ds.settings import Settings
from tornado_ds.storage.audit import SQLAuditStore
from tornado_ds.storage.database import COMMAND_SECONDS, Database, parse_url
from tornado_ds.storage.schema import head_revision

PASSWORD = "correct horse battery staple"
OPERATOR = f"operator:{pwd.getpwuid(os.getuid()).pw_name}"
HOUR = 3600
NOW = int(time.time())

FAILED = AuditEntry(
    event="login.failed",
    username="alice",
    detail="wrong password",
    actor="anonymous",
    address="2001:db8::1",
    user_agent="curl/8",
    created_at=NOW - HOUR,
    count=3,
)
ENDED = AuditEntry(
    event="session.ended", username="bob", sid="5" * 32, detail="logout", actor="user:bob", created_at=NOW - 50 * HOUR
)
SEEDED = AuditEntry(event="users.seeded", detail="2 added", actor="operator:root", created_at=1_500_000_000)

pytestmark = pytest.mark.usefixtures("command_settings")


@pytest.fixture
def _entries(sqlite_file: Path) -> None:
    """Three entries: one is years old, one two days, and one an hour."""
    store_now(sqlite_file, SEEDED, ENDED, FAILED)


@pytest.mark.usefixtures("_entries")
def test_list_shows_everything_to_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    """Newest first, every field under its name, and times as elsewhere."""
    rows = listed(capsys)

    assert [row["event"] for row in rows] == ["login.failed", "session.ended", "users.seeded"]
    assert rows[0] == {
        "time": iso(NOW - HOUR),
        "event": "login.failed",
        "username": "alice",
        "sid": None,
        "detail": "wrong password",
        "actor": "anonymous",
        "address": "2001:db8::1",
        "user_agent": "curl/8",
        "count": 3,
    }


@pytest.mark.usefixtures("_entries")
def test_list_shows_a_table_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each, with reason and address."""
    code = run("audit", "list")

    output = capsys.readouterr()
    head, first, *others = output.out.splitlines()
    assert (code, output.err, len(others)) == (0, "", 2)
    assert head.split() == ["time", "event", "username", "actor", "address", "detail", "count"]
    assert first.split("  ")[0] == iso(NOW - HOUR)
    for text in ("login.failed", "alice", "anonymous", "2001:db8::1", "wrong password", "3"):
        assert text in first


@pytest.mark.usefixtures("_entries")
@pytest.mark.parametrize(
    ("expected", "arguments"),
    [
        pytest.param(["login.failed"], ["--user", "alice"], id="user"),
        pytest.param([], ["--user", "nobody"], id="nobody"),
        pytest.param(["login.failed"], ["--since", "24h"], id="hours"),
        pytest.param(["login.failed", "session.ended"], ["--since", "7d"], id="days"),
        pytest.param(["login.failed", "session.ended"], ["--since", "2017-07-15"], id="date"),
        pytest.param(["login.failed", "session.ended", "users.seeded"], ["--since", "2017-07-14"], id="date-before"),
        pytest.param(["login.failed", "session.ended"], ["--since", "2017-07-14T02:40:01Z"], id="moment"),
        pytest.param(["login.failed", "session.ended", "users.seeded"], ["--since", "2017-07-14 02:40"], id="minute"),
        pytest.param(["session.ended"], ["--event", "session.ended"], id="event"),
        pytest.param(
            ["login.failed", "users.seeded"], ["--event", "users.seeded", "--event", "login.failed"], id="events"
        ),
        pytest.param(["login.failed", "session.ended"], ["--limit", "2"], id="limit"),
        pytest.param([], ["--user", "bob", "--event", "login.failed"], id="both"),
    ],
)
def test_list_shows_what_is_asked_for(
    capsys: pytest.CaptureFixture[str], expected: list[str], arguments: list[str]
) -> None:
    """By user, time and event; all that is said must hold."""
    rows = listed(capsys, *arguments)

    assert expected == [row["event"] for row in rows]


def test_list_finds_a_user_by_any_spelling(capsys: pytest.CaptureFixture[str]) -> None:
    """As the login does; and somebody who was removed as it was written."""
    add_user("Straße")

    by_spelling = listed(capsys, "--user", "STRASSE")
    run("users", "remove", "Straße", "--yes")

    assert [row["username"] for row in by_spelling] == ["Straße"]
    assert [row["event"] for row in listed(capsys, "--user", "Straße")] == ["user.removed", "user.added"]


@pytest.mark.parametrize(
    ("expected", "arguments"),
    [
        pytest.param("'yesterday' is no time; write 24h, 7d, 2026-11-01 or ", ["--since", "yesterday"], id="since"),
        pytest.param("'2026-13-01' is no time", ["--since", "2026-13-01"], id="month-13"),
        pytest.param("'2026' is no time", ["--since", "2026"], id="year"),
        pytest.param("'20261101' is no time", ["--since", "20261101"], id="no-dashes"),
        pytest.param("there is no event 'login'; there are login.succeeded, ", ["--event", "login"], id="event"),
        pytest.param("Invalid value for '--limit'", ["--limit", "0"], id="limit"),
    ],
)
def test_list_fails_in_one_line_when_it_is_asked_wrong(
    capsys: pytest.CaptureFixture[str], expected: str, arguments: list[str]
) -> None:
    """The line says what would be right."""
    code = run("audit", "list", *arguments)

    output = capsys.readouterr()
    assert code > 0
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert output.err.startswith(f"error: {expected}")


def test_list_sends_nothing_to_the_terminal_that_it_would_obey(
    capsys: pytest.CaptureFixture[str], sqlite_file: Path
) -> None:
    """Not even what somebody wrote into the database behind our back."""
    hostile = "\x1b[2J\u202e\r\nx"
    store_now(sqlite_file, AuditEntry(event="user.added", username=hostile, detail="[red]" + hostile, created_at=NOW))

    run("audit", "list")
    table = capsys.readouterr().out
    rows = listed(capsys)

    assert all(line.isprintable() for line in table.splitlines())
    assert "[red]" in table
    assert rows[0]["username"] == hostile


def test_commands_leave_one_entry_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each names who typed it and what changed; what changes nothing leaves none."""
    add_user("alice", "--role", "editor")
    for command in (
        ["users", "roles", "alice", "admin", "editor"],
        ["users", "roles", "alice", "admin", "editor"],
        ["users", "set-data", "alice", "--server-data", '{"pin": "1234"}', "--client-data", '{"colour": "red"}'],
        ["users", "disable", "alice"],
        ["users", "disable", "alice"],
        ["users", "enable", "alice"],
        ["users", "show", "alice"],
        ["throttle", "clear", "ALICE"],
        ["throttle", "clear", "--address", "192.0.2.1"],
        ["throttle", "clear", "--everybody"],
    ):
        assert run(*command) == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a purple elephant in the rain")))
    assert run("users", "passwd", "alice", "--password-stdin") == 0
    assert run("users", "remove", "alice", "--yes") == 0

    assert trail(capsys) == [
        ("user.added", "alice", "roles: editor"),
        ("user.changed", "alice", "server_data; roles: admin, editor"),
        ("user.changed", "alice", "server_data, client_data"),
        ("user.disabled", "alice", ""),
        ("user.enabled", "alice", ""),
        ("throttle.cleared", "alice", "0 of account"),
        ("throttle.cleared", None, "0 of 192.0.2.1"),
        ("throttle.cleared", None, "0 of everybody"),
        ("password.changed", "alice", ""),
        ("user.removed", "alice", ""),
    ]
    assert {row["actor"] for row in listed(capsys)} == {OPERATOR}


def test_sessions_are_audited_when_commands_open_and_end_them(capsys: pytest.CaptureFixture[str]) -> None:
    """By the operator who asked for it, or by the system where it is a consequence; the token is nowhere."""
    add_user("alice")
    run("sessions", "open", "alice", "--lifetime", "1h", "--label", "invoice printer")
    run("sessions", "open", "alice", "--lifetime", "1h")
    run("sessions", "end", "--user", "alice")
    run("sessions", "open", "alice", "--lifetime", "1h")
    token = capsys.readouterr().out.splitlines()[-1]
    run("users", "disable", "alice")

    rows = listed(capsys)

    assert [(row["event"], row["actor"], row["detail"]) for row in reversed(rows[:-1])] == [
        ("session.opened", OPERATOR, "invoice printer"),
        ("session.opened", OPERATOR, "token"),
        ("session.ended", OPERATOR, "ended_by_operator"),
        ("session.ended", OPERATOR, "ended_by_operator"),
        ("session.opened", OPERATOR, "token"),
        ("user.disabled", OPERATOR, ""),
        ("session.ended", "system", "disabled"),
    ]
    assert rows[0]["sid"] == rows[2]["sid"]
    assert token.count(".") == 2
    assert token not in json.dumps(rows)


def test_seed_leaves_one_entry_for_all_who_are_new_and_one_for_each_who_changed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A thousand new users are one fact; who became an admin is to be found by name."""
    file = tmp_path / "users.yml"
    file.write_text("".join(f"- {{username: user{n}, password: {PASSWORD} {n}}}\n" for n in range(3)))
    assert run("seed", str(file), "--dry-run") == 0
    assert run("seed", str(file)) == 0
    assert run("seed", str(file)) == 0
    file.write_text("- {username: user1, server_data: {roles: [admin]}}\n- {username: user2}\n")

    assert run("seed", str(file), "--update") == 0

    assert trail(capsys) == [
        ("users.seeded", None, "3 added"),
        ("user.changed", "user1", "server_data; roles: admin"),
    ]


def test_seed_leaves_no_entry_when_it_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A file that is wrong changed nothing."""
    file = tmp_path / "users.yml"
    file.write_text(f"- {{username: new, password: {PASSWORD}}}\n- {{username: other}}\n")

    assert run("seed", str(file)) == 1

    assert trail(capsys) == []


def test_keys_are_audited_when_they_are_rotated_and_retired(
    capsys: pytest.CaptureFixture[str], command_settings: Settings
) -> None:
    """By their ids, which are no secret; the first one is made without being asked for."""
    first = open_key_ring(command_settings.key_file, "HS256", now=NOW - HOUR).oldest_key.kid
    run("keys", "rotate", "--after", "0s", "--json")
    second = json.loads(capsys.readouterr().out)["kid"]
    run("keys", "retire", first, "--yes")

    assert trail(capsys) == [("key.rotated", None, second), ("key.retired", None, first)]


def test_keys_can_be_rotated_when_that_cannot_be_audited(
    capsys: pytest.CaptureFixture[str], command_settings: Settings
) -> None:
    """A key that leaked cannot wait for the database."""
    execute(command_settings.sqlite_path, "DROP TABLE audit")

    code = run("keys", "rotate")

    output = capsys.readouterr()
    assert code == 0
    assert "signs from" in output.out
    assert output.err.startswith("warning: this is not in the audit trail: the database failed: ")
    assert output.err.count("\n") == 1


def test_upgrade_is_audited_when_it_changed_the_database(capsys: pytest.CaptureFixture[str]) -> None:
    """From where to where, and by whom; to repeat it changes nothing, and leaves nothing."""
    assert run("db", "downgrade", "0002", "--yes") == 0

    assert run("db", "upgrade") == 0
    assert run("db", "upgrade") == 0

    assert trail(capsys) == [("database.upgraded", None, f"0002 to {head_revision()}")]
    assert {row["actor"] for row in listed(capsys)} == {OPERATOR}


def test_downgrade_is_logged_because_it_may_drop_the_trail(capsys: pytest.CaptureFixture[str]) -> None:
    """One line on stderr with what an entry would say; none when nothing was changed."""
    assert run("db", "downgrade", "0002", "--yes") == 0
    logged = capsys.readouterr().err
    assert run("db", "downgrade", "0002", "--yes") == 0

    assert logged.count("\n") == 1
    for text in ("database.downgraded", OPERATOR, f"{head_revision()} to 0002"):
        assert text in logged
    assert capsys.readouterr().err == ""


def run(*arguments: str) -> int:
    """Run one command."""
    return cli.run(list(arguments))


def add_user(name: str, *options: str) -> None:
    """Add somebody, with a password from standard input."""
    stdin = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(PASSWORD.encode()))
    assert run("users", "add", name, "--password-stdin", *options) == 0
    sys.stdin = stdin


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """Return what `audit list` shows to scripts."""
    capsys.readouterr()
    assert run("audit", "list", "--json", *arguments) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def trail(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str | None, str]]:
    """Return what happened to whom, oldest first."""
    return [(row["event"], row["username"], row["detail"]) for row in reversed(listed(capsys))]


def execute(file: Path, statement: str) -> None:
    """Do something to the database behind our back."""
    connection = sqlite3.connect(file)
    connection.execute(statement)
    connection.commit()
    connection.close()


def store_now(file: Path, *entries: AuditEntry) -> None:
    """Put *entries* into the database."""

    async def add() -> None:
        database = Database(parse_url(f"sqlite:///{file}"), seconds=COMMAND_SECONDS)
        await SQLAuditStore(database).add(entries)
        await database.close()

    run_now(add)
