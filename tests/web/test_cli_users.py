"""`users`: add, show and change users, beside a server or without one."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.commands import with_services
from tests.web.conftest import Keyboard
from tests.web.terminal import run_in_terminal
from tornado_ds import cli
from tornado_ds.errors import AuthenticationError, ReadOnlyUserStoreError
from tornado_ds.services import Services
from tornado_ds.settings import Settings
from tornado_ds.storage.memory import MemoryUserStore
from tornado_ds.users import User, UserChanges

PASSWORD = "correct horse battery staple"
OTHER = "another horse, another staple"

COMMANDS = ["add", "list", "show", "passwd", "roles", "set-data", "disable", "enable", "remove"]


@pytest.fixture(autouse=True)
def settings(command_settings: Settings) -> Settings:
    """Those that the commands find in the environment."""
    return command_settings


@pytest.fixture
def alice(settings: Settings) -> User:
    """Alice has roles and data, and is logged in once."""

    async def prepare(services: Services) -> User:
        data = {"roles": ["editor", "admin"], "team": "blue"}
        await services.accounts.add("Alice", PASSWORD, server_data=data, client_data={"colour": "red"})
        await services.accounts.log_in("Alice", PASSWORD)
        return await existing(services)

    return with_services(settings, prepare)


class StoreOfAnother(MemoryUserStore):
    """Users whom somebody else manages."""

    async def add(self, users: Sequence[User]) -> None:
        raise ReadOnlyUserStoreError("users are managed in the directory")


Stdin = Callable[[str | bytes], None]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Stdin:
    """What the next command reads from standard input, which is no terminal."""

    def hold(content: str | bytes) -> None:
        raw = content.encode() if isinstance(content, str) else content
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))

    hold("")
    return hold


def run(*arguments: str) -> int:
    """Run one command."""
    return cli.run(["users", *arguments])


def store_data(settings: Settings, server_data: dict[str, Any]) -> None:
    """Store *server_data* of alice past the rules, as another program can."""
    with_services(settings, lambda services: services.users.update("alice", UserChanges(server_data=server_data)))


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """Run a command that succeeds, and return its JSON."""
    code = run(*arguments, "--json")
    output = capsys.readouterr()
    assert (code, output.err) == (0, "")
    return json.loads(output.out)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that fails, and return its one line."""
    code = run(*arguments)
    output = capsys.readouterr()
    assert (code, output.out, output.err.count("\n")) == (1, "", 1)
    return output.err.rstrip("\n")


async def existing(services: Services, username: str = "alice") -> User:
    user = await services.users.get(username)
    assert user is not None
    return user


def stored(settings: Settings, username: str = "alice") -> User:
    return with_services(settings, lambda services: existing(services, username))


def end_reasons(settings: Settings) -> set[str | None]:
    """Return why the sessions of alice have ended; None is for one that goes on."""
    sessions = with_services(settings, lambda services: services.sessions.list("Alice", include_ended=True))
    return {session.end_reason for session in sessions}


def can_log_in(settings: Settings, username: str, password: str) -> bool:
    try:
        with_services(settings, lambda services: services.accounts.authenticate(username, password))
    except AuthenticationError:
        return False
    return True


@pytest.mark.parametrize("line", [PASSWORD, f"{PASSWORD}\n", f"{PASSWORD}\r\n"], ids=["bare", "lf", "crlf"])
def test_add_stores_the_user_when_the_password_comes_by_stdin(
    settings: Settings, capsys: pytest.CaptureFixture[str], stdin: Stdin, line: str
) -> None:
    """The answer is all of the user but the hash; the end of the line is no part of the password."""
    stdin(line)

    user = answer(
        capsys,
        *("add", "Jürgen", "--role", "editor", "--role", "admin"),
        *("--server-data", '{"team": "blue"}', "--client-data", '{"colour": "red"}', "--password-stdin"),
    )

    assert user.pop("created_at") == user.pop("updated_at")
    assert {
        "username": "Jürgen",
        "server_data": {"team": "blue", "roles": ["editor", "admin"]},
        "client_data": {"colour": "red"},
        "version": 1,
        "disabled": False,
    } == user
    assert can_log_in(settings, "jürgen", PASSWORD)


@pytest.mark.parametrize(
    ("arguments", "text", "expected"),
    [
        pytest.param(("bob",), "elevenchars", "the password needs at least 12 characters", id="short-password"),
        pytest.param(("bob",), "", "the password needs at least 12 characters", id="no-password"),
        pytest.param(("bob",), f"{PASSWORD}\n{PASSWORD}\n", "standard input must hold the password and", id="lines"),
        pytest.param(("bob",), b"\xff" * 20, "the password on standard input is not UTF-8", id="not-utf-8"),
        pytest.param(("bob",), "x" * 100_000, "the password may have at most 72 bytes", id="long-password"),
        pytest.param(("alice",), PASSWORD, "there is a user 'Alice' already", id="existing"),
        pytest.param(("",), PASSWORD, "a username has 1 to 128 characters", id="no-name"),
        pytest.param(("b\x1b[2Job",), PASSWORD, "the username 'b\\x1b[2Job' has characters that", id="control-name"),
        pytest.param(("bob", "--server-data", "{"), PASSWORD, "--server-data: this is not JSON", id="broken-json"),
        pytest.param(("bob", "--client-data", "[]"), PASSWORD, "--client-data: write a JSON object", id="list"),
        pytest.param(("bob", "--role", ""), PASSWORD, "each of the roles must be text", id="empty-role"),
        pytest.param(("bob", "--client-data", '{"token": 1}'), PASSWORD, "client_data may not hold token", id="token"),
        pytest.param(
            ("bob", "--role", "a", "--server-data", '{"roles": []}'),
            PASSWORD,
            "roles are there twice",
            id="roles-twice",
        ),
    ],
)
@pytest.mark.usefixtures("alice")
def test_add_fails_in_one_line(
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    stdin: Stdin,
    arguments: tuple[str, ...],
    text: str | bytes,
    expected: str,
) -> None:
    """Nobody is added, and the reason is said."""
    stdin(text)

    said = complaint(capsys, "add", *arguments, "--password-stdin")

    assert said.startswith(f"error: {expected}")
    users = with_services(settings, lambda services: services.users.list())
    assert ["Alice"] == [user.username for user in users]


def test_add_says_where_to_go_when_users_are_managed_elsewhere(
    capsys: pytest.CaptureFixture[str], stdin: Stdin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that takes no changes is nothing that another command could mend, and the line says so."""
    monkeypatch.setenv("TORNADO_DS_USER_STORE", f"{__name__}:StoreOfAnother")
    stdin(PASSWORD)

    said = complaint(capsys, "add", "carol", "--password-stdin")

    assert "change users where they are managed" in said
    assert said.endswith("users are managed in the directory")


@pytest.mark.parametrize("command", ["add", "passwd"])
@pytest.mark.usefixtures("stdin")
def test_password_is_not_asked_for_when_there_is_no_terminal(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """A script that forgot the password is told what to do, and does not hang."""
    said = complaint(capsys, command, "alice")

    assert said == "error: there is no terminal to ask for the password: give it with --password-stdin"


def test_add_asks_twice_and_shows_nothing(settings: Settings) -> None:
    """What is typed is not on the screen."""
    answers = [("Password for bob: ", f"{PASSWORD}\n"), ("The same once more: ", f"{PASSWORD}\n")]

    done = run_in_terminal(["users", "add", "bob"], answers)

    assert (0, "Password for bob: \nThe same once more: \nbob was added.\n") == (done.code, done.screen)
    assert can_log_in(settings, "bob", PASSWORD)


@pytest.mark.parametrize(
    ("command", "answers", "expected"),
    [
        pytest.param(
            ("add", "bob"),
            [("Password for bob: ", f"{PASSWORD}\n"), ("The same once more: ", f"{OTHER}\n")],
            "error: the two passwords differ",
            id="different",
        ),
        pytest.param(
            ("add", "bob"),
            [("Password for bob: ", "short\n")],
            "error: the password needs at least 12 characters",
            id="short",
        ),
        pytest.param(("add", "bob"), [("Password for bob: ", "\x04")], "error: nothing was done", id="end-of-file"),
    ],
)
@pytest.mark.usefixtures("alice")
def test_password_is_not_asked_for_in_vain(
    settings: Settings, command: tuple[str, ...], answers: list[tuple[str, str]], expected: str
) -> None:
    """The command ends as soon as it is clear that nothing will come of it."""
    done = run_in_terminal(["users", *command], answers)

    assert 1 == done.code
    assert done.screen.endswith(f"{expected}\n")
    users = with_services(settings, lambda services: services.users.list())
    assert ["Alice"] == [user.username for user in users]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        pytest.param(("add", "ALICE"), "error: there is a user 'Alice' already", id="existing"),
        pytest.param(("passwd", "bob"), "error: there is no user 'bob'", id="unknown"),
    ],
)
@pytest.mark.usefixtures("alice")
def test_password_is_not_asked_for_when_the_name_is_wrong(
    capsys: pytest.CaptureFixture[str], keyboard: Keyboard, command: tuple[str, ...], expected: str
) -> None:
    """Nobody types a password twice to be told then."""
    keyboard("")

    said = complaint(capsys, *command)

    assert expected == said


def test_list_shows_pages_that_follow_each_other(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Each page says how to get the next one, until there is none."""
    names = ["Anna", "bob", "Chris", "dora", "it's me"]

    async def add(services: Services) -> None:
        await services.users.add([User(name, "x") for name in reversed(names)])

    with_services(settings, add)

    seen, hints = [], []
    for after in ([], ["--after=bob"], ["--after=dora"], ["--after", "IT'S ME"]):
        assert run("list", "--limit", "2", "--json", *after) == 0
        output = capsys.readouterr()
        seen.append([user["username"] for user in json.loads(output.out)])
        hints.append(output.err.strip())

    assert [names[:2], names[2:4], names[4:], []] == seen
    more = "More: python -m tornado_ds users list --limit 2 --after="
    assert [f"{more}bob", f"{more}dora", "", ""] == hints


def test_list_is_a_table_for_people(alice: User, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each, with what one wants to see at a glance."""
    run("disable", "alice")
    capsys.readouterr()

    code = run("list")

    head, row = capsys.readouterr().out.splitlines()
    assert code == 0
    assert ["username", "roles", "disabled", "created", "at"] == head.split()
    assert ["Alice", "editor,", "admin", "yes"] == row.split()[:4]


def test_list_says_so_when_there_is_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty table would leave one wondering."""
    code = run("list")

    assert (0, "There are no users.\n") == (code, capsys.readouterr().out)


def test_show_says_what_is_stored_but_for_the_hash(alice: User, capsys: pytest.CaptureFixture[str]) -> None:
    """Any spelling of the name will do; times are in ISO 8601."""
    shown = answer(capsys, "show", "ALICE")

    assert set(shown) == {
        "username",
        "server_data",
        "client_data",
        "version",
        "disabled",
        "created_at",
        "updated_at",
    }
    assert ("Alice", {"colour": "red"}, 1) == (shown["username"], shown["client_data"], shown["version"])
    assert "T" in shown["created_at"]
    assert shown["created_at"].endswith("Z")


def test_show_is_a_table_for_people(alice: User, capsys: pytest.CaptureFixture[str]) -> None:
    """Each field has a line."""
    code = run("show", "alice")

    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert code == 0
    assert ["username", "Alice"] in [[part.strip() for part in line] for line in lines]
    assert ["client_data", '{"colour": "red"}'] in [[part.strip() for part in line] for line in lines]
    assert ["disabled", "no"] in [[part.strip() for part in line] for line in lines]


def test_passwd_sets_the_password_and_ends_all_sessions(
    settings: Settings, alice: User, capsys: pytest.CaptureFixture[str], stdin: Stdin
) -> None:
    """Whoever knew the old one is out."""
    stdin(f"{OTHER}\n")

    code = run("passwd", "alice", "--password-stdin")

    assert (0, "Alice has a new password; all sessions have ended.\n") == (code, capsys.readouterr().out)
    assert can_log_in(settings, "alice", OTHER)
    assert not can_log_in(settings, "alice", PASSWORD)
    assert {"password_changed"} == end_reasons(settings)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param((), ["editor", "admin"], id="show"),
        pytest.param(("reader",), ["reader"], id="set"),
        pytest.param(("a", "b", "a"), ["a", "b"], id="set-twice"),
        pytest.param(("--add", "reader"), ["editor", "admin", "reader"], id="add"),
        pytest.param(("--add", "admin"), ["editor", "admin"], id="add-again"),
        pytest.param(("--remove", "editor"), ["admin"], id="remove"),
        pytest.param(("--remove", "nothing"), ["editor", "admin"], id="remove-what-is-not-there"),
        pytest.param(("--add", "a", "--add", "b", "--remove", "admin"), ["editor", "a", "b"], id="add-and-remove"),
        pytest.param(("--clear",), [], id="clear"),
    ],
)
def test_roles_shows_and_changes_roles(
    settings: Settings,
    alice: User,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    expected: list[str],
) -> None:
    """Other data stay, sessions go on, and the version counts up only if something changed."""
    user = answer(capsys, "roles", "alice", *arguments)

    is_changed = expected != ["editor", "admin"]
    assert {"roles": expected, "team": "blue"} == user["server_data"]
    assert {"roles": expected, "team": "blue"} == stored(settings).server_data
    assert (alice.version + is_changed, {None}) == (stored(settings).version, end_reasons(settings))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param((), "Alice: editor, admin\n", id="show"),
        pytest.param(("[red]",), "Alice: [red]\n", id="markup"),
        pytest.param(("--clear",), "Alice: no roles\n", id="clear"),
    ],
)
@pytest.mark.usefixtures("alice")
def test_roles_says_in_words_what_they_are(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: str
) -> None:
    """One line, for people."""
    code = run("roles", "alice", *arguments)

    assert (0, expected) == (code, capsys.readouterr().out)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("a", "--add", "b"), id="set-and-add"),
        pytest.param(("a", "--clear"), id="set-and-clear"),
        pytest.param(("--remove", "a", "--clear"), id="remove-and-clear"),
    ],
)
@pytest.mark.usefixtures("alice")
def test_roles_fails_when_it_is_told_two_things(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    """Which of them is meant, nobody can know."""
    said = complaint(capsys, "roles", "alice", *arguments)

    assert said.startswith("error: name the roles, or use --add and --remove, or --clear")


@pytest.mark.usefixtures("alice")
def test_roles_are_added_only_to_a_list(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """What somebody else stored as roles may be anything; it is shown, and can be replaced."""
    store_data(settings, {"roles": {"editor": True}})

    said = complaint(capsys, "roles", "alice", "--add", "admin")

    assert said.startswith("error: server_data.roles of 'Alice' is no list of text")
    assert {"editor": True} == answer(capsys, "roles", "alice")["server_data"]["roles"]
    assert ["admin"] == answer(capsys, "roles", "alice", "admin")["server_data"]["roles"]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("roles", "alice", "editor "), id="roles"),
        pytest.param(("roles", "alice", "--add", ""), id="roles-add"),
        pytest.param(("set-data", "alice", "--server-data", '{"roles": "subeditor"}'), id="set-data"),
        pytest.param(("add", "bob", "--server-data", '{"roles": "subeditor"}', "--password-stdin"), id="add"),
    ],
)
@pytest.mark.usefixtures("alice")
def test_roles_are_refused_when_they_are_no_list_of_words(
    capsys: pytest.CaptureFixture[str], stdin: Stdin, arguments: tuple[str, ...]
) -> None:
    """A rule would find `editor` in the text `subeditor`; the message says what to write instead."""
    stdin(PASSWORD)

    said = complaint(capsys, *arguments)

    assert said.startswith("error: each of the roles must be text that can be seen, and there once, in a list")


def test_add_keeps_a_role_once_when_it_is_named_twice(capsys: pytest.CaptureFixture[str], stdin: Stdin) -> None:
    """As `users roles` does."""
    stdin(PASSWORD)

    user = answer(capsys, "add", "bob", "--role", "editor", "--role", "editor", "--password-stdin")

    assert ["editor"] == user["server_data"]["roles"]


@pytest.mark.usefixtures("alice")
def test_disable_works_when_the_stored_roles_are_no_list(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """An account of before there was a rule, or of another program, can be closed."""
    store_data(settings, {"roles": "subeditor"})

    user = answer(capsys, "disable", "alice")

    assert (True, {"roles": "subeditor"}) == (user["disabled"], user["server_data"])


@pytest.mark.parametrize(
    ("arguments", "server_data", "client_data", "version"),
    [
        pytest.param(("--server-data", '{"a": 1}'), {"a": 1}, {"colour": "red"}, 2, id="server-data"),
        pytest.param(("--client-data", "{}"), {"roles": ["editor", "admin"], "team": "blue"}, {}, 2, id="client-data"),
        pytest.param(("--server-data", "{}", "--client-data", '{"b": 2}'), {}, {"b": 2}, 2, id="both"),
        pytest.param(
            ("--server-data", '{"team": "blue", "roles": ["editor", "admin"]}'),
            {"roles": ["editor", "admin"], "team": "blue"},
            {"colour": "red"},
            1,
            id="the-same",
        ),
    ],
)
@pytest.mark.usefixtures("alice")
def test_set_data_replaces_data(
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    server_data: dict[str, Any],
    client_data: dict[str, Any],
    version: int,
) -> None:
    """What is not named stays, and what is so already counts for nothing."""
    user = answer(capsys, "set-data", "alice", *arguments)

    assert (server_data, client_data, version) == (user["server_data"], user["client_data"], user["version"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param((), "say what to set", id="nothing"),
        pytest.param(("--server-data", "x"), "--server-data: this is not JSON", id="not-json"),
        pytest.param(("--server-data", '{"a": 1, "a": 2}'), "--server-data: the key 'a' is there twice", id="twice"),
        pytest.param(("--client-data", '{"username": 1}'), "client_data may not hold username", id="reserved"),
        pytest.param(("--server-data", f'{{"a": "{"x" * 2048}"}}'), "server_data and client_data take", id="large"),
    ],
)
def test_set_data_fails_in_one_line(
    settings: Settings, alice: User, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: str
) -> None:
    """Nothing is written, and the reason is said."""
    said = complaint(capsys, "set-data", "alice", *arguments)

    assert said.startswith(f"error: {expected}")
    assert alice == stored(settings)


def test_disable_and_enable_let_nobody_and_somebody_in(
    settings: Settings, alice: User, capsys: pytest.CaptureFixture[str]
) -> None:
    """Disabling ends all sessions; saying it twice changes nothing more."""
    said = [(command, answer(capsys, command, "alice")) for command in ("disable", "disable", "enable", "enable")]

    assert [(True, 2), (True, 2), (False, 3), (False, 3)] == [(user["disabled"], user["version"]) for _, user in said]
    assert {"disabled"} == end_reasons(settings)
    assert can_log_in(settings, "alice", PASSWORD)


def test_remove_ends_all_sessions_when_there_is_a_yes(
    settings: Settings, alice: User, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user is gone, and so is whoever was logged in."""
    code = run("remove", "ALICE", "--yes")

    assert (0, "Alice was removed; all sessions have ended.\n") == (code, capsys.readouterr().out)
    assert "error: there is no user 'alice'" == complaint(capsys, "show", "alice")
    assert {"removed"} == end_reasons(settings)


@pytest.mark.parametrize(
    ("typed", "code", "last"),
    [
        pytest.param("y\n", 0, "Alice was removed; all sessions have ended.", id="yes"),
        pytest.param("n\n", 1, "error: nothing was done", id="no"),
        pytest.param("\n", 1, "error: nothing was done", id="enter"),
        pytest.param("\x04", 1, "error: nothing was done", id="end-of-file"),
    ],
)
@pytest.mark.usefixtures("alice")
def test_remove_asks_first(
    settings: Settings, capsys: pytest.CaptureFixture[str], keyboard: Keyboard, typed: str, code: int, last: str
) -> None:
    """Only a yes removes somebody for good."""
    keyboard(typed)

    ended = run("remove", "alice")

    output = capsys.readouterr()
    assert code == ended
    assert output.err.startswith("Remove Alice for good? [y/N]:")
    assert last == (output.err.partition("]:")[2] + output.out).strip()
    left = with_services(settings, lambda services: services.users.get("alice"))
    assert (code == 0) == (left is None)


@pytest.mark.usefixtures("stdin")
def test_add_refuses_data_when_the_token_would_be_too_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an issuer takes of a token is gone for the data; somebody who could not log in is not added."""
    monkeypatch.setenv("TORNADO_DS_TOKEN__ISSUER", "i" * 128)
    monkeypatch.setenv("TORNADO_DS_TOKEN__AUDIENCE", "a" * 128)
    data = json.dumps({"a": "x" * 2000})

    said = complaint(capsys, "add", "\u5b57" * 128, "--server-data", data, "--password-stdin")

    assert re.fullmatch(r"error: the token of '.*' would have \d+ bytes, .*: give that user less data", said)


@pytest.mark.usefixtures("alice", "stdin")
def test_remove_fails_when_nobody_can_be_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """A script must say that it is sure."""
    said = complaint(capsys, "remove", "alice")

    assert said == "error: there is no terminal to ask whether you are sure: say --yes"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("show",), id="show"),
        pytest.param(("passwd", "--password-stdin"), id="passwd"),
        pytest.param(("roles", "--add", "a"), id="roles"),
        pytest.param(("set-data", "--server-data", "{}"), id="set-data"),
        pytest.param(("disable",), id="disable"),
        pytest.param(("enable",), id="enable"),
        pytest.param(("remove", "--yes"), id="remove"),
    ],
)
def test_commands_fail_in_one_line_when_there_is_no_such_user(
    capsys: pytest.CaptureFixture[str], stdin: Stdin, arguments: tuple[str, ...]
) -> None:
    """The name is shown in a way that the terminal can take."""
    stdin(PASSWORD)
    command, *options = arguments

    said = complaint(capsys, command, "\x1b[2J\u202e", *options)

    assert said == "error: there is no user '\\x1b[2J\\u202e'"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("nobody", "error: there is no user 'nobody'", id="unknown"),
        pytest.param("", "error: there is no user ''", id="empty"),
        pytest.param("x" * 10_000, "error: there is no user 'xxx", id="long"),
        pytest.param("\udcff", "error: the database cannot take a text that is no Unicode", id="not-utf-8"),
    ],
)
def test_show_fails_in_one_line_whatever_the_name(capsys: pytest.CaptureFixture[str], name: str, expected: str) -> None:
    """A name that nobody can have is one that nobody has."""
    said = complaint(capsys, "show", name)

    assert said.startswith(expected)
    assert said.isprintable()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("\x1b]0;owned\x07\x9b2J", id="escape-sequences"),
        pytest.param("a\nb\r\u2028", id="line-breaks"),
        pytest.param("\u202eecila", id="bidi"),
        pytest.param("[/bold] [red]a[/red] :boom:", id="markup"),
        pytest.param("{name} %s", id="placeholders"),
    ],
)
def test_names_of_foreign_stores_do_nothing_to_a_terminal(
    settings: Settings, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Names that we would not take can still be in a store: they are shown, and not obeyed."""

    async def add(services: Services) -> None:
        await services.users.add([User(name, "x", server_data={"roles": [name], "text": name})])

    with_services(settings, add)
    outputs = []
    for arguments in (["list"], ["show", name], ["roles", name], ["disable", name], ["list", "--json"]):
        assert run(*arguments) == 0
        outputs.append(capsys.readouterr().out)

    assert all(output.replace("\n", "").isprintable() for output in outputs)
    assert name == json.loads(outputs[-1])[0]["username"]
    if name.isprintable():
        assert all(name in output for output in outputs[:4])


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_ends_in_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Each command says how it is used."""
    code = run(command, "--help")

    assert code == 0
    assert f"Example: python -m tornado_ds users {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "expected"),
    [pytest.param([], r"J\xfcrgen", id="table"), pytest.param(["--json"], r'"username": "J\u00fcrgen"', id="json")],
)
def test_names_are_escaped_when_the_output_cannot_hold_them(
    settings: Settings, options: list[str], expected: str
) -> None:
    """Where the locale knows no umlauts a command still says what it can."""
    with_services(settings, lambda services: services.users.add([User("Jürgen", "x")]))
    command = [sys.executable, "-m", "tornado_ds", "users", "list", *options]

    done = subprocess.run(
        command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, timeout=60
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert expected in done.stdout
