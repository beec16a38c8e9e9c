"""`sessions list`, `end` and `open`, beside a server or without one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import with_services
from tests.live.servers import AuthServer, fetch, wait_for
from tests.web.terminal import run_in_terminal
from tornado_ds import cli
from tornado_ds.clock import iso
from tornado_ds.errors import AuthenticationError, StorageError
from tornado_ds.services import Services
from tornado_ds.sessions import OpenSession
from tornado_ds.settings import Settings
from tornado_ds.storage.memory import MemoryUserStore
from tornado_ds.users import User, UserChanges

PASSWORD = "correct horse battery staple"
SECRET = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"

STORE_IS_DOWN = (
    "warning: the directory is away: 'Alice' is taken as it is typed, so type it as `sessions list` shows it"
)


class StoreThatIsDown(MemoryUserStore):
    """Users whom somebody else manages, and of whom nothing can be heard."""

    async def get(self, username: str) -> User | None:
        raise StorageError("the directory is away")


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
def sessions(settings: Settings) -> dict[str, OpenSession]:
    """Alice has two sessions, and one that ended; bob has one."""

    async def prepare(services: Services) -> dict[str, OpenSession]:
        for name in ("Alice", "bob"):
            await services.accounts.add(name, PASSWORD, server_data={"roles": []})
        opened = {
            "first": await services.accounts.log_in("alice", PASSWORD, address="203.0.113.9", user_agent="curl/8.5.0"),
            "second": await services.accounts.log_in("alice", PASSWORD),
            "ended": await services.accounts.log_in("alice", PASSWORD),
            "bobs": await services.accounts.log_in("bob", PASSWORD),
        }
        await services.sessions.end(opened["ended"].session.sid, reason="logout")
        return opened

    return with_services(settings, prepare)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthServer]:
    """A running server with the user alice."""
    server = AuthServer(tmp_path_factory.mktemp("auth"), secret=SECRET, deepstream_port=1)
    server.cli("seed", "-", text=json.dumps([{"username": "alice", "password": PASSWORD}]))
    with server:
        yield server


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param((), {"first", "second", "bobs"}, id="live"),
        pytest.param(("--all",), {"first", "second", "ended", "bobs"}, id="all"),
        pytest.param(("--user", "Alice"), {"first", "second"}, id="user"),
        pytest.param(("--user", "ALICE"), {"first", "second"}, id="other-spelling"),
        pytest.param(("--user", "alice", "--all"), {"first", "second", "ended"}, id="all-of-a-user"),
        pytest.param(("--user", "nobody"), set(), id="unknown-user"),
    ],
)
def test_list_shows_the_sessions_that_were_asked_for(
    capsys: pytest.CaptureFixture[str], sessions: dict[str, OpenSession], arguments: tuple[str, ...], expected: set[str]
) -> None:
    """Live sessions of everybody or of one user, and with --all those that are over too."""
    rows = listed(capsys, *arguments)

    assert {sessions[name].session.sid for name in expected} == {row["sid"] for row in rows}


def test_list_says_where_a_session_comes_from_and_what_became_of_it(
    capsys: pytest.CaptureFixture[str], sessions: dict[str, OpenSession]
) -> None:
    """JSON holds all that is known of each."""
    rows = {row["sid"]: row for row in listed(capsys, "--all")}

    first, ended = rows[sessions["first"].session.sid], rows[sessions["ended"].session.sid]
    assert (first["username"], first["address"]) == ("Alice", "203.0.113.9")
    assert (first["browser"], first["user_agent"]) == ("curl", "curl/8.5.0")
    assert (first["ended_at"], first["end_reason"]) == (None, None)
    assert (ended["ended_at"] is None, ended["end_reason"]) == (False, "logout")


def test_list_is_a_table_for_people(capsys: pytest.CaptureFixture[str], sessions: dict[str, OpenSession]) -> None:
    """Without --json each session is one line, with its id in full."""
    code = run("list")

    head, *rows = capsys.readouterr().out.splitlines()
    assert code == 0
    assert head.split()[:3] == ["sid", "username", "address"]
    assert len(rows) == 3
    assert {row.split()[0] for row in rows} == {sessions[name].session.sid for name in ("first", "second", "bobs")}


def test_list_says_so_when_there_are_no_sessions(capsys: pytest.CaptureFixture[str]) -> None:
    """A header above nothing would leave one wondering; scripts get an empty array."""
    as_table = run("list", "--user", "nobody"), capsys.readouterr().out
    as_json = run("list", "--user", "nobody", "--json"), capsys.readouterr().out

    assert as_table == (0, "There are none.\n")
    assert as_json == (0, "[]\n")


@pytest.mark.parametrize("columns", ["80", "20"])
@pytest.mark.parametrize("terminal", ["xterm", "dumb"])
def test_list_leaves_ids_and_times_whole_when_the_terminal_is_narrow(
    monkeypatch: pytest.MonkeyPatch, sessions: dict[str, OpenSession], columns: str, terminal: str
) -> None:
    """They are there to be copied: the terminal may break a line, the table breaks no word."""
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", terminal)

    finished = run_in_terminal(["sessions", "list", "--user", "alice"])

    words = finished.screen.split()
    assert finished.code == 0
    assert {sessions[name].session.sid for name in ("first", "second")} <= set(words)
    assert iso(sessions["first"].session.created_at) in words


def test_end_ends_one_session(capsys: pytest.CaptureFixture[str], sessions: dict[str, OpenSession]) -> None:
    """The session that was named ends, and says later who did it; the others go on."""
    code = run("end", sessions["first"].session.sid)

    assert (code, capsys.readouterr().out) == (0, "Ended 1 session.\n")
    rows = {row["sid"]: row["end_reason"] for row in listed(capsys, "--all")}
    assert rows[sessions["first"].session.sid] == "ended_by_operator"
    assert rows[sessions["second"].session.sid] is None


@pytest.mark.parametrize(
    ("arguments", "expected", "left"),
    [
        pytest.param(("--user", "alice"), 2, {"bobs"}, id="user"),
        pytest.param(("--everybody",), 3, set(), id="everybody"),
    ],
)
def test_end_ends_many_sessions(
    capsys: pytest.CaptureFixture[str],
    sessions: dict[str, OpenSession],
    arguments: tuple[str, ...],
    expected: int,
    left: set[str],
) -> None:
    """All sessions of a user end, or all there are, and the number is reported."""
    code = run("end", *arguments, "--json")

    assert (code, json.loads(capsys.readouterr().out)) == (0, {"ended": expected})
    assert {sessions[name].session.sid for name in left} == {row["sid"] for row in listed(capsys)}


def test_end_ends_the_sessions_of_somebody_who_was_removed(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    """Nobody can be left behind by a removal, so there is nothing left to end."""
    with_services(settings, lambda services: services.accounts.remove("alice"))

    code = run("end", "--user", "Alice")

    assert (code, capsys.readouterr().out) == (0, "Ended 0 sessions.\n")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        pytest.param(["sessions", "end", "--user", "Alice"], {"ended": 2}, id="end"),
        pytest.param(["throttle", "clear", "Alice"], {"cleared": 1}, id="throttle"),
    ],
)
def test_command_does_what_it_can_when_the_user_store_is_down(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    expected: dict[str, int],
) -> None:
    """What is in our own database needs no directory; the name counts as it is typed, and the command says so."""
    with_services(settings, fail_to_log_in)
    capsys.readouterr()
    monkeypatch.setenv("TORNADO_DS_USER_STORE", f"{__name__}:StoreThatIsDown")

    code = cli.run([*command, "--json"])

    output = capsys.readouterr()
    assert (code, json.loads(output.out)) == (0, expected)
    assert output.err.splitlines() == [STORE_IS_DOWN]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        pytest.param(["sessions", "end", "--user", "carol"], {"ended": 0}, id="end"),
        pytest.param(["throttle", "clear", "carol"], {"cleared": 0}, id="throttle"),
    ],
)
@pytest.mark.parametrize(
    ("store", "warnings"),
    [
        pytest.param(f"{__name__}:StoreThatIsDown", [STORE_IS_DOWN.replace("Alice", "carol")], id="down"),
        pytest.param("memory", [], id="memory"),
    ],
)
def test_command_does_nothing_quietly_when_nobody_can_tell_whether_the_name_is_right(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    expected: dict[str, int],
    store: str,
    warnings: list[str],
) -> None:
    """A directory that is away, or users within the server's process, make no mistake of a name."""
    monkeypatch.setenv("TORNADO_DS_USER_STORE", store)

    code = cli.run([*command, "--json"])

    output = capsys.readouterr()
    assert (code, json.loads(output.out)) == (0, expected)
    assert output.err.splitlines() == warnings


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        pytest.param(["sessions", "list", "--user", "Alice"], {"Alice"}, id="sessions"),
        pytest.param(["audit", "list", "--user", "Alice"], {"Alice"}, id="audit"),
        pytest.param(["sessions", "list", "--user", "alice"], set(), id="other-spelling"),
    ],
)
def test_list_shows_what_there_is_when_the_user_store_is_down(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str], expected: set[str]
) -> None:
    """Whoever looks into an outage sees what is noted under the name as it is typed, and is told that it is so."""
    monkeypatch.setenv("TORNADO_DS_USER_STORE", f"{__name__}:StoreThatIsDown")

    code = cli.run([*command, "--json"])

    output = capsys.readouterr()
    assert (code, {row["username"] for row in json.loads(output.out)}) == (0, expected)
    assert output.err.splitlines() == [STORE_IS_DOWN.replace("Alice", command[-1])]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(("end",), "name one of", id="nothing"),
        pytest.param(("end", "some-sid", "--everybody"), "name one of", id="two-things"),
        pytest.param(("end", "--user", "alice", "--everybody"), "name one of", id="two-other-things"),
        pytest.param(("end", "--user", "nobody"), "there is no user 'nobody'", id="nobody-to-end"),
        pytest.param(("end", "--user", "a\nb"), "there is no user 'a\\nb'", id="no-name-to-end"),
        pytest.param(("end", "no-such-sid"), "no live session 'no-such-sid'", id="unknown-session"),
        pytest.param(("end", ""), "no live session ''", id="empty"),
        pytest.param(("end", "\x1b[2J"), "no live session '\\x1b[2J'", id="escape-sequence"),
        pytest.param(("end", "\udcff"), "error: ", id="not-utf8"),
        pytest.param(("open", "nobody", "--lifetime", "1d"), "no user 'nobody'", id="unknown-user"),
        pytest.param(("open", "alice"), "--lifetime", id="no-lifetime"),
        pytest.param(("open", "alice", "--lifetime", "soon"), "'soon' is no time", id="no-time"),
        pytest.param(("open", "alice", "--lifetime", "0d"), "'0d' is no time", id="zero"),
        pytest.param(("open", "alice", "--lifetime", "-1d"), "'-1d' is no time", id="negative"),
        pytest.param(("open", "alice", "--lifetime", "999999999d"), "3650d", id="for-ever"),
        pytest.param(("open", "alice", "--lifetime", "1d", "--label", "x" * 101), "100 are the most", id="long-label"),
        pytest.param(("list", "--user"), "--user", id="no-name"),
        pytest.param(("ends",), "ends", id="no-such-command"),
    ],
)
def test_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str, sessions: dict[str, OpenSession]
) -> None:
    """Whatever is wrong is said in one line on stderr, and nothing ends."""
    code = run(*arguments)

    captured = capsys.readouterr()
    assert code != 0
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert len(listed(capsys)) == 3


def test_open_refuses_who_may_not_log_in(capsys: pytest.CaptureFixture[str], settings: Settings) -> None:
    """A disabled user gets no token."""
    with_services(settings, lambda services: services.accounts.change("bob", UserChanges(disabled=True)))

    code = run("open", "bob", "--lifetime", "1d")

    assert (code, capsys.readouterr().err) == (1, "error: there is no user 'bob' who may log in\n")


def test_open_cleans_the_label(capsys: pytest.CaptureFixture[str], settings: Settings) -> None:
    """What a label holds that cannot be seen is stored as text, so that no list or log has to mind it."""
    code = run("open", "alice", "--lifetime", "1d", "--label", "printer\x1b[2J\u202e")

    assert (0, 1) == (code, capsys.readouterr().out.count("\n"))
    sessions = with_services(settings, lambda services: services.sessions.list("Alice"))
    assert r"printer\x1b[2J\u202e" in {session.label for session in sessions}


def test_open_prints_a_token_that_lasts(capsys: pytest.CaptureFixture[str], settings: Settings) -> None:
    """The token and nothing else goes to stdout; it is good for as long as was asked for, and listed by its label."""
    code = run("open", "alice", "--lifetime", "90d", "--label", "invoice printer")

    (token,) = capsys.readouterr().out.splitlines()
    (row,) = [row for row in listed(capsys) if row["label"] == "invoice printer"]
    claims = with_services(settings, lambda services: check(services, token))
    assert code == 0
    assert (claims.sid, claims.username) == (row["sid"], "Alice")
    assert claims.expires_at - claims.issued_at == 90 * 86400


def test_open_tells_all_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A script gets the session's id together with the token."""
    code = run("open", "alice", "--lifetime", "12h", "--json")

    opened = json.loads(capsys.readouterr().out)
    assert code == 0
    assert opened["token"].count(".") == 2
    assert opened["sid"] in {row["sid"] for row in listed(capsys, "--user", "alice")}


def test_label_does_nothing_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A label is shown and not obeyed."""
    run("open", "alice", "--lifetime", "1d", "--label", "\x1b[31mred[bold]")
    capsys.readouterr()

    run("list")

    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "red[bold]" in out


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["sessions", "end", "--user", "alice"], id="end"),
        pytest.param(["sessions", "end", "--everybody"], id="everybody"),
    ],
)
def test_running_server_hears_of_an_end(
    server: AuthServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """A command works beside a running server, which turns the browser away within a second."""
    for name, value in server.settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORNADO_DS_DATABASE_URL")
    cookie = server.log_in("alice", PASSWORD)
    before = fetch(f"{server.url}/session", headers={"Cookie": cookie})

    code = cli.run(command)
    after = wait_for(lambda: refused(server, cookie), seconds=5)

    assert (before.status, code) == (200, 0)
    assert after == {"error": "session_ended"}


def test_running_server_takes_a_token(
    server: AuthServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A token that was printed beside a running server is good there at once, and can be ended there."""
    for name, value in server.settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORNADO_DS_DATABASE_URL")

    cli.run(["sessions", "open", "alice", "--lifetime", "1d", "--json"])
    opened = json.loads(capsys.readouterr().out)
    cookie = f"access_token={opened['token']}"
    before = fetch(f"{server.url}/session", headers={"Cookie": cookie})
    cli.run(["sessions", "end", opened["sid"]])
    after = wait_for(lambda: refused(server, cookie), seconds=5)

    assert before.json()["username"] == "alice"
    assert after == {"error": "session_ended"}


def run(*arguments: str) -> int:
    """Run one command of `sessions`."""
    return cli.run(["sessions", *arguments])


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """Return what `sessions list` shows."""
    assert run("list", "--json", *arguments) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def refused(server: AuthServer, cookie: str) -> Any:
    """Return what the server says to a session that is over; None while it is not."""
    response = fetch(f"{server.url}/session", headers={"Cookie": cookie})
    return response.json() if response.status == 401 else None


async def check(services: Services, token: str) -> Any:
    """Return the claims of *token* if a page would take it."""
    await services.feed.read()
    return services.checker.check(token).claims


async def fail_to_log_in(services: Services) -> None:
    """Try a wrong password of alice, from no address."""
    with pytest.raises(AuthenticationError):
        await services.accounts.log_in("alice", "not the password")
