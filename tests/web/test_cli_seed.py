"""`seed`: what becomes of users whom a file names, and of the ones who are there already."""

import io
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from tests.commands import with_services
from tests.web.terminal import run_in_terminal
from tornado_ds import cli
from tornado_ds.errors import AuthenticationError
from tornado_ds.resources import resource
from tornado_ds.settings import Settings
from tornado_ds.users import User, UserChanges

PASSWORD = "correct horse battery staple"
OTHER = "another horse, another staple"
NOTHING: dict[str, list[str]] = {"added": [], "updated": [], "unchanged": [], "left_alone": []}

# The users.yml that comes with deepstream; the password of both is "password".
DEEPSTREAM = """
userA:
  password: "rCOSZxJrgze2AZdVQh12c6ErDMOG0M+Rx5Yu7S5d91c=GS4SbTQYmoaGwjm2shEobg=="
  clientData:
    some: "thing"
userB:
  password: "rCOSZxJrgze2AZdVQh12c6ErDMOG0M+Rx5Yu7S5d91c=GS4SbTQYmoaGwjm2shEobg=="
  serverData:
    some: "thing"
"""
MD5 = ("--deepstream-hash", "md5", "--deepstream-iterations", "100", "--deepstream-key-length", "32")


@pytest.fixture(autouse=True)
def settings(command_settings: Settings) -> Settings:
    """Those that the commands find in the environment."""
    return command_settings


Seed = Callable[..., dict[str, Any]]


@pytest.fixture
def seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Seed:
    """Seed entries with options, and return the report."""

    def run(entries: list[dict[str, Any]], *options: str) -> dict[str, Any]:
        code = cli.run(["seed", str(write(tmp_path, entries)), "--json", *options])
        output = capsys.readouterr()
        assert (code, output.err) == (0, "")
        report: dict[str, Any] = json.loads(output.out)
        return report

    return run


def write(folder: Path, content: str | list[dict[str, Any]], name: str = "users.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def stored(settings: Settings) -> dict[str, User]:
    """Return all users by name."""
    users = with_services(settings, lambda services: services.users.list())
    return {user.username: user for user in users}


def can_log_in(settings: Settings, username: str, password: str) -> bool:
    try:
        with_services(settings, lambda services: services.accounts.authenticate(username, password))
    except AuthenticationError:
        return False
    return True


def hash_of(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that fails, and return its one line."""
    code = cli.run(["seed", *arguments])
    output = capsys.readouterr()
    assert (code, output.out, output.err.count("\n")) == (1, "", 1)
    return output.err.rstrip("\n")


FORMATS = {
    "users.yml": f"""
        - username: alice
          password: {PASSWORD}
          roles: [editor, admin]
        - username: Jürgen
          password_hash: {hash_of(OTHER)}
          server_data: {{team: blue}}
          client_data: {{colour: red}}
          disabled: true
    """,
    "users.YAML": f"""
        alice: {{password: {PASSWORD}, roles: [editor, admin]}}
        Jürgen:
          {{password_hash: {hash_of(OTHER)}, serverData: {{team: blue}}, clientData: {{colour: red}}, disabled: yes}}
    """,
    "users.json": json.dumps(
        {
            "alice": {"password": PASSWORD, "roles": ["editor", "admin"]},
            "Jürgen": {
                "password_hash": hash_of(OTHER),
                "server_data": {"team": "blue"},
                "client_data": {"colour": "red"},
                "disabled": True,
            },
        }
    ),
    "users.csv": (
        "username,password,password_hash,roles,server_data,client_data,disabled\n"
        f"alice,{PASSWORD},,editor admin,,,\n"
        f'Jürgen,,{hash_of(OTHER)},,"{{""team"": ""blue""}}","{{""colour"": ""red""}}",yes\n'
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_seed_adds_the_users_of_a_file(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Each format says the same, and what it says is stored."""
    file = write(tmp_path, FORMATS[name], name)

    code = cli.run(["seed", str(file), "--json"])

    assert code == 0
    assert {**NOTHING, "added": ["alice", "Jürgen"], "dry_run": False} == json.loads(capsys.readouterr().out)
    alice, juergen = stored(settings)["alice"], stored(settings)["Jürgen"]
    assert ({"roles": ["editor", "admin"]}, {}, False) == (alice.server_data, alice.client_data, alice.is_disabled)
    assert ({"team": "blue"}, {"colour": "red"}, True) == (
        juergen.server_data,
        juergen.client_data,
        juergen.is_disabled,
    )
    assert can_log_in(settings, "alice", PASSWORD)
    assert bcrypt.checkpw(OTHER.encode(), juergen.password_hash.encode())


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in FORMATS.items()])
def test_seed_reads_standard_input(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """For `-` the format shows by itself; a byte order mark is no part of it."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode("utf-8-sig"))))

    code = cli.run(["seed", "-"])

    assert code == 0
    assert {"alice", "Jürgen"} == set(stored(settings))


@pytest.mark.parametrize(
    "module",
    [pytest.param(("tornado_ds", "seed"), id="command"), pytest.param(("tornado_ds.seed",), id="script")],
)
def test_seed_is_a_command_and_a_script(settings: Settings, tmp_path: Path, module: tuple[str, ...]) -> None:
    """`python -m tornado_ds seed` and `python -m tornado_ds.seed` take the same and do the same."""
    file = write(tmp_path, FORMATS["users.yml"], "users")
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", *module, str(file), "--format", "yaml"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert (0, "") == (done.returncode, done.stderr)
    assert [
        "result      users  names",
        "added       2      alice, Jürgen",
        "updated     0",
        "unchanged   0",
        "left alone  0",
    ] == [line.rstrip() for line in done.stdout.splitlines()]
    assert {"alice", "Jürgen"} == set(stored(settings))


def test_seed_leaves_existing_users_alone(settings: Settings, seed: Seed) -> None:
    """The second run changes nothing, whatever the file says by now."""
    seed([{"username": "Alice", "password": PASSWORD, "roles": ["editor"]}])
    before = stored(settings)

    report = seed([{"username": "alice", "password": OTHER, "roles": []}, {"username": "bob", "password": PASSWORD}])

    assert {**NOTHING, "added": ["bob"], "left_alone": ["Alice"], "dry_run": False} == report
    assert before["Alice"] == stored(settings)["Alice"]


@pytest.mark.parametrize(
    ("entry", "server_data", "client_data", "is_disabled"),
    [
        pytest.param({"server_data": {"b": 1}}, {"b": 1}, {"c": 1}, False, id="server-data"),
        pytest.param({"roles": []}, {"roles": []}, {"c": 1}, False, id="roles"),
        pytest.param({"server_data": {}}, {}, {"c": 1}, False, id="no-server-data"),
        pytest.param({"server_data": {"a": True}}, {"a": True}, {"c": 1}, False, id="true-for-one"),
        pytest.param({"client_data": {}}, {"a": 1}, {}, False, id="client-data"),
        pytest.param({"disabled": True}, {"a": 1}, {"c": 1}, True, id="disabled"),
    ],
)
def test_update_changes_what_the_file_says(
    settings: Settings,
    seed: Seed,
    entry: dict[str, Any],
    server_data: Mapping[str, Any],
    client_data: Mapping[str, Any],
    is_disabled: bool,
) -> None:
    """Data are replaced, the rest stays, and the version counts up by one."""
    seed([{"username": "alice", "password": PASSWORD, "server_data": {"a": 1}, "client_data": {"c": 1}}])
    before = stored(settings)["alice"]

    report = seed([{"username": "alice", "password": OTHER, **entry}], "--update")

    after = stored(settings)["alice"]
    assert {**NOTHING, "updated": ["alice"], "dry_run": False} == report
    assert (server_data, client_data, is_disabled) == (after.server_data, after.client_data, after.is_disabled)
    assert (before.password_hash, before.version + 1) == (after.password_hash, after.version)
    assert [type(value) for value in server_data.values()] == [type(value) for value in after.server_data.values()]


@pytest.mark.parametrize("option", ["--update", "--update-passwords"])
@pytest.mark.parametrize(
    "entry",
    [
        pytest.param({}, id="silent"),
        pytest.param({"password": PASSWORD}, id="password"),
        pytest.param({"server_data": {"b": [1, None], "a": 1}}, id="server-data"),
        pytest.param({"client_data": {}, "disabled": True}, id="client-data-and-disabled"),
    ],
)
def test_update_leaves_a_user_alone_who_is_as_the_file_says(
    settings: Settings, seed: Seed, entry: dict[str, Any], option: str
) -> None:
    """Nothing is written, so no session hears of it and the version stays."""
    seed([{"username": "Alice", "password": PASSWORD, "server_data": {"a": 1, "b": [1, None]}, "disabled": True}])
    before = stored(settings)

    report = seed([{"username": "alice", **entry}], option)

    assert {**NOTHING, "unchanged": ["Alice"], "dry_run": False} == report
    assert before == stored(settings)


def test_update_changes_many_users_when_there_are_many(settings: Settings, seed: Seed) -> None:
    """More users than one transaction changes, of whom every second is as the file says."""
    names = [f"user{number:03}" for number in range(50)]
    password_hash = hash_of(PASSWORD)
    seed([{"username": name, "password_hash": password_hash, "client_data": {"n": 0}} for name in names])

    report = seed(
        [{"username": name, "client_data": {"n": number % 2}} for number, name in enumerate(names)], "--update"
    )

    assert (names[1::2], names[::2]) == (report["updated"], report["unchanged"])
    users = with_services(settings, lambda services: services.users.list(limit=1000))
    assert [1, 2] * 25 == [user.version for user in users]


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param({"password": OTHER}, id="password"),
        pytest.param({"password_hash": hash_of(OTHER)}, id="password-hash"),
    ],
)
def test_update_passwords_sets_passwords_and_data(settings: Settings, seed: Seed, secret: dict[str, str]) -> None:
    """The new password is good, the old one is not, and both changes count as one."""
    seed([{"username": "alice", "password": PASSWORD}, {"username": "bob", "password": PASSWORD}])

    report = seed(
        [{"username": "alice", **secret, "roles": ["editor"]}, {"username": "bob", "password": PASSWORD}],
        "--update-passwords",
    )

    assert {**NOTHING, "updated": ["alice"], "unchanged": ["bob"], "dry_run": False} == report
    assert can_log_in(settings, "alice", OTHER)
    assert not can_log_in(settings, "alice", PASSWORD)
    assert can_log_in(settings, "bob", PASSWORD)
    versions = {name: user.version for name, user in stored(settings).items()}
    assert {"alice": 2, "bob": 1} == versions
    assert {"roles": ["editor"]} == stored(settings)["alice"].server_data


@pytest.mark.parametrize(
    ("entry", "reasons"),
    [
        pytest.param({"roles": ["editor"]}, {None}, id="data"),
        pytest.param({"password": OTHER}, {"password_changed"}, id="password"),
        pytest.param({"disabled": True}, {"disabled"}, id="disabled"),
        pytest.param({"password": PASSWORD}, {None}, id="nothing"),
    ],
)
def test_live_sessions_follow_an_update(
    settings: Settings, seed: Seed, entry: dict[str, Any], reasons: set[str | None]
) -> None:
    """A new password and a disabled account end the user's sessions, new data do not."""
    seed([{"username": "alice", "password": PASSWORD}])
    with_services(settings, lambda services: services.accounts.log_in("alice", PASSWORD))

    seed([{"username": "alice", **entry}], "--update-passwords")

    sessions = with_services(settings, lambda services: services.sessions.list("alice", include_ended=True))
    assert reasons == {session.end_reason for session in sessions}


def test_update_disables_somebody_whose_stored_roles_are_no_list(settings: Settings, seed: Seed) -> None:
    """What is stored already may be as it is: the file does not change it."""
    seed([{"username": "alice", "password": PASSWORD}])
    odd = UserChanges(server_data={"roles": "subeditor"})
    with_services(settings, lambda services: services.users.update("alice", odd))

    report = seed([{"username": "alice", "disabled": True}], "--update")

    assert {**NOTHING, "updated": ["alice"]} == {key: report[key] for key in NOTHING}
    assert stored(settings)["alice"].is_disabled


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        pytest.param({"roles": ["editor"]}, [("user.changed", 2)], id="data"),
        pytest.param({"password": OTHER}, [("session.ended", None), ("user.changed", 2)], id="password"),
        pytest.param({"disabled": True}, [("session.ended", None), ("user.changed", 2)], id="disabled"),
        pytest.param({"password": PASSWORD}, [], id="nothing"),
    ],
)
def test_update_is_told_to_every_server(
    settings: Settings, seed: Seed, sqlite_file: Path, entry: dict[str, Any], expected: list[tuple[str, int | None]]
) -> None:
    """The feed that all processes follow says what happened; of a user who stays as before it says nothing."""
    seed([{"username": "alice", "password": PASSWORD}])
    with_services(settings, lambda services: services.accounts.log_in("alice", PASSWORD))

    seed([{"username": "alice", **entry}], "--update-passwords")

    with closing(sqlite3.connect(sqlite_file)) as connection:
        events = connection.execute("SELECT kind, version, username FROM session_events ORDER BY seq").fetchall()
    assert [(*event, "alice") for event in expected] == events


@pytest.mark.parametrize("options", [(), ("--update",), ("--update-passwords",)])
def test_dry_run_reports_the_same_and_writes_nothing(settings: Settings, seed: Seed, options: tuple[str, ...]) -> None:
    """What would happen is what then happens."""
    seed([{"username": name, "password": PASSWORD} for name in ("alice", "bob", "chris")])
    before = stored(settings)
    entries = [
        {"username": "alice", "password": OTHER},
        {"username": "bob", "password": PASSWORD, "roles": ["editor"]},
        {"username": "chris", "password": PASSWORD},
        {"username": "dora", "password": PASSWORD},
    ]

    foretold = seed(entries, "--dry-run", *options)

    assert before == stored(settings)
    assert {**foretold, "dry_run": False} == seed(entries, *options)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        pytest.param(
            "users.yml",
            f"- username: alice\n  password: {PASSWORD}\n\n- username: bob\n  password: hunter2\n",
            "error: line 4, user 'bob': the password needs at least 12 characters",
            id="yaml",
        ),
        pytest.param(
            "users.json",
            f'[{{"username": "alice", "password": "{PASSWORD}"}},\n{{"username": "bob", "password": "hunter2"}}]',
            "error: line 2, user 'bob': the password needs at least 12 characters",
            id="json",
        ),
        pytest.param(
            "users.csv",
            f"username,password\nalice,{PASSWORD}\nbob,hunter2\n",
            "error: line 3, user 'bob': the password needs at least 12 characters",
            id="csv",
        ),
        pytest.param(
            "users.csv",
            f"username,password\nalice,{PASSWORD}\nbob,\n",
            "error: line 3, user 'bob': a new user needs a password or a password_hash",
            id="no-password",
        ),
        pytest.param(
            "users.csv",
            f"username,password\nalice,{PASSWORD}\nALICE,{PASSWORD}\n",
            "error: line 3, user 'ALICE': this user is on line 2 already",
            id="twice",
        ),
        pytest.param(
            "users.yml", f"alice: {{password: {PASSWORD}}}\nbob: [", "error: line 2: this is not", id="syntax"
        ),
    ],
)
def test_seed_writes_nothing_when_one_row_is_bad(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, expected: str
) -> None:
    """One line names the row, the user and the reason, and never the password."""
    file = write(tmp_path, text, name)

    said = complaint(capsys, str(file))

    assert said.startswith(expected)
    assert "hunter2" not in said
    assert {} == stored(settings)


def test_seed_writes_nothing_when_a_token_would_be_too_long(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is added who could not log in."""
    monkeypatch.setenv("TORNADO_DS_TOKEN__ISSUER", "i" * 128)
    monkeypatch.setenv("TORNADO_DS_TOKEN__AUDIENCE", "a" * 128)
    long = {"username": "\u5b57" * 128, "password": PASSWORD, "server_data": {"a": "x" * 2000}}
    file = write(tmp_path, [{"username": "alice", "password": PASSWORD}, long])

    said = complaint(capsys, str(file))

    assert said.startswith("error: line 1, user '")
    assert said.endswith("give that user less data")
    assert {} == stored(settings)


def test_update_writes_nothing_when_data_leave_no_room(
    settings: Settings, seed: Seed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """New data can be good by themselves, and too much beside those that stay."""
    seed([{"username": name, "password": PASSWORD, "server_data": {"a": "x" * 1500}} for name in ("alice", "bob")])
    before = stored(settings)
    file = write(
        tmp_path,
        [
            {"username": "alice", "client_data": {}, "roles": ["editor"]},
            {"username": "bob", "client_data": {"b": "x" * 1500}},
        ],
    )

    said = complaint(capsys, str(file), "--update")

    assert said.startswith("error: line 1, user 'bob': server_data and client_data take")
    assert before == stored(settings)


def test_seed_takes_the_users_of_deepstream(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They log in with their passwords, which are hashed by bcrypt from then on."""
    file = write(tmp_path, DEEPSTREAM, "users.yml")

    code = cli.run(["seed", str(file), *MD5])

    assert (code, capsys.readouterr().err) == (0, "")
    users = stored(settings)
    assert ({"some": "thing"}, {"some": "thing"}) == (users["userA"].client_data, users["userB"].server_data)
    assert users["userA"].password_hash.startswith("$deepstream$md5$100$32$")
    assert not can_log_in(settings, "userA", "Password")
    assert can_log_in(settings, "userA", "password")
    assert bcrypt.checkpw(b"password", stored(settings)["userA"].password_hash.encode())
    assert can_log_in(settings, "userA", "password")


def test_seed_takes_clear_passwords_of_deepstream(settings: Settings, tmp_path: Path) -> None:
    """With `hash: false` deepstream stores what was typed."""
    file = write(tmp_path, f"userA:\n  password: {PASSWORD}\n", "users.yml")

    code = cli.run(["seed", str(file), "--deepstream-hash", "false"])

    assert code == 0
    assert can_log_in(settings, "userA", PASSWORD)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(("nobody.yml",), "error: nobody.yml cannot be read: No such file or directory", id="no-file"),
        pytest.param((".", "--format", "csv"), "error: . cannot be read: Is a directory", id="folder"),
        pytest.param(
            ("/dev/zero", "--format", "json"), "error: /dev/zero is larger than 256 MiB: seed it in parts", id="endless"
        ),
        pytest.param(
            ("users.txt",), "error: users.txt ends in none of .yml, .yaml, .json, .csv: say --format", id="txt"
        ),
        pytest.param(
            ("latin.csv",), "error: line 2: this is not UTF-8; save the file with that encoding", id="latin-1"
        ),
        pytest.param(("users.yml", *MD5[:2]), "error: --deepstream-hash needs --deepstream-iterations and", id="hash"),
        pytest.param(
            ("users.yml", *MD5[2:]), "error: --deepstream-iterations and --deepstream-key-length go", id="rest"
        ),
        pytest.param(("users.yml",), "error: line 2, user 'userA': the password is a hash of deepstream", id="no-hash"),
    ],
)
def test_seed_fails_in_one_line_when_it_is_called_wrong(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    expected: str,
) -> None:
    """What cannot be meant is refused, with what to do."""
    write(tmp_path, DEEPSTREAM, "users.yml")
    write(tmp_path, "", "users.txt")
    (tmp_path / "latin.csv").write_bytes("username\nJürgen\n".encode("latin-1"))
    monkeypatch.chdir(tmp_path)

    said = complaint(capsys, *arguments)

    assert said.startswith(expected)


def test_seed_tells_people_how_to_go_on(seed: Seed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table counts all and names some, and what was not done is said."""
    entries: list[dict[str, Any]] = [{"username": f"user{number}", "password": PASSWORD} for number in range(7)]
    seed(entries)

    code = cli.run(["seed", str(write(tmp_path, entries)), "--dry-run"])

    output = capsys.readouterr()
    assert (0, "") == (code, output.err)
    assert "left alone  7      user0, user1, user2, user3, user4 and 2 more" in output.out
    assert "--update changes the data of users that exist" in output.out
    assert output.out.endswith("\nNothing was written (--dry-run).\n")


def test_seed_shows_how_far_it_is_when_somebody_watches(settings: Settings, tmp_path: Path) -> None:
    """In a terminal there is a bar, and in the end only the table is left."""
    entries = [{"username": f"user{number}", "password": PASSWORD} for number in range(5)]

    done = run_in_terminal(["seed", str(write(tmp_path, entries))])

    assert 0 == done.code
    assert "Hashing passwords" in done.screen
    assert "5/5" in done.screen
    assert 5 == len(stored(settings))


def test_example_is_refused_until_it_has_passwords(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody gets an account whose password stands in the documentation."""
    example = resource("config") / "users.example.yml"

    said = complaint(capsys, str(example), "--dry-run")

    assert said.endswith("user 'wolfram': the password needs at least 12 characters")
    text = example.read_text(encoding="utf-8").replace('"CHANGEME"', f'"{PASSWORD}"')
    assert 0 == cli.run(["seed", str(write(tmp_path, text, "users.yml"))])
    users = stored(settings)
    assert {"wolfram", "chris", "jens"} == set(users)
    assert ["editor", "admin"] == users["wolfram"].server_data["roles"]
    assert users["jens"].is_disabled


def test_seed_writes_all_new_users_or_none(settings: Settings, seed: Seed) -> None:
    """Thousands of users are added in one go, names in any script among them."""
    password_hash = hash_of(PASSWORD)
    names = [f"Ünal-{number}" for number in range(1100)]

    report = seed([{"username": name, "password_hash": password_hash} for name in names])

    users = with_services(settings, lambda services: services.users.list(limit=5000))
    assert names == report["added"]
    assert set(names) == {user.username for user in users}


@given(
    content=st.binary(max_size=30) | st.text("ab1-:,{}[]\"'&*\r\n \ufeff\u202e\x1b", max_size=30).map(str.encode),
    file_format=st.sampled_from(["yaml", "json", "csv"]),
)
@hypothesis(
    max_examples=hypothesis().max_examples // 2,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_octets_are_users_or_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, file_format: str
) -> None:
    """Whatever somebody takes for a seed file, there is no traceback, and nothing for a terminal to obey."""
    file = tmp_path / "users"
    file.write_bytes(content)

    code = cli.run(["seed", str(file), "--dry-run", "--format", file_format])

    complaint = capsys.readouterr().err
    assert (code, complaint.count("\n")) in ((0, 0), (1, 1))
    assert complaint.rstrip("\n").isprintable()
