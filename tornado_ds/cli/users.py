"""`users`: add, show and change users."""

import getpass
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeGuard

import typer

from tornado_ds.cli.common import (
    JsonOption,
    arguments_for,
    ask,
    current_settings,
    fail,
    print_json,
    print_rows,
    visible,
    with_users,
)
from tornado_ds.clock import iso
from tornado_ds.errors import SeedError
from tornado_ds.passwords import check_password
from tornado_ds.seed import drop_unchanged
from tornado_ds.seed_entries import with_roles
from tornado_ds.seed_formats import parse_object
from tornado_ds.services import Services
from tornado_ds.users import User, UserChanges, check_username

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Add, show and change users.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The username.")]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input, one line; for scripts.")
]
ServerData = Annotated[
    str | None,
    typer.Option(metavar="JSON", help="What deepstream's permission rules see of the user, as a JSON object."),
]
ClientData = Annotated[
    str | None, typer.Option(metavar="JSON", help="What the user's own browser gets, as a JSON object.")
]

# One line of what a form can send, and then some; the rules for passwords are narrower.
_MAX_LINE = 4096


@app.command()
def add(
    name: Name,
    role: Annotated[list[str] | None, typer.Option(help="A role of the user; can be said several times.")] = None,
    server_data: ServerData = None,
    client_data: ClientData = None,
    password_stdin: PasswordStdin = False,
    as_json: JsonOption = False,
) -> None:
    """
    Add a user; asks for the password.

    Example: python -m tornado_ds users add alice --role editor
    """
    server = with_roles(_parse("--server-data", server_data), role and _once(role)) or {}
    client = _parse("--client-data", client_data) or {}
    check_username(name)
    _refuse_unless_asked(from_stdin=password_stdin)
    new = User(name, "", server_data=server, client_data=client)
    with_users(lambda services: _check_new(services, new), may_create=True)
    password = _read_password(name, from_stdin=password_stdin)
    user = with_users(lambda services: services.accounts.add(name, password, server_data=server, client_data=client))
    _report(user, "{name} was added.", as_json=as_json)


@app.command("list")
def list_users(
    after: Annotated[str | None, typer.Option(metavar="NAME", help="Begin behind this user.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many to print.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """
    List users by name, a page at a time.

    Example: python -m tornado_ds users list --limit 20
    """
    users = with_users(lambda services: services.users.list(after=after, limit=limit + 1))
    page = users[:limit]
    if as_json:
        print_json([_as_json(user) for user in page])
    elif page:
        print_rows([_as_row(user) for user in page], ["username", "roles", "disabled", "created_at"], as_json=False)
    else:
        typer.echo("There are no users." if after is None else "There are no more users.")
    if len(users) > limit:
        last = page[-1].username if page[-1].username.isprintable() else "..."
        more = ["python", *arguments_for("users", "list", "--limit", str(limit), f"--after={last}")]
        typer.echo(f"\nMore: {shlex.join(more)}", err=True)


@app.command()
def show(name: Name, as_json: JsonOption = False) -> None:
    """
    Show a user.

    Example: python -m tornado_ds users show alice
    """
    user = with_users(lambda services: _existing(services, name))
    if as_json:
        print_json(_as_json(user))
        return
    fields = {**_as_json(user), "disabled": _as_row(user)["disabled"] or "no"}
    print_rows([{"field": key, "value": value} for key, value in fields.items()], ["field", "value"], as_json=False)


@app.command()
def passwd(name: Name, password_stdin: PasswordStdin = False, as_json: JsonOption = False) -> None:
    """
    Set a user's password, and end all of the user's sessions; asks for the password.

    Example: python -m tornado_ds users passwd alice
    """
    _refuse_unless_asked(from_stdin=password_stdin)
    username = with_users(lambda services: _existing(services, name)).username
    password = _read_password(username, from_stdin=password_stdin)
    user = with_users(lambda services: services.accounts.set_password(username, password))
    _report(user, "{name} has a new password; all sessions have ended.", as_json=as_json)


@app.command()
def roles(
    name: Name,
    role: Annotated[
        list[str] | None, typer.Argument(metavar="ROLE", help="The roles from now on, instead of those before.")
    ] = None,
    add_role: Annotated[list[str] | None, typer.Option("--add", metavar="ROLE", help="Give one more role.")] = None,
    remove_role: Annotated[list[str] | None, typer.Option("--remove", metavar="ROLE", help="Take one role.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take all roles.")] = False,
    as_json: JsonOption = False,
) -> None:
    """
    Show a user's roles, set them, or give and take single ones. Live sessions follow.

    Example: python -m tornado_ds users roles alice editor admin

    Example: python -m tornado_ds users roles alice --add editor --remove admin
    """
    if bool(role) + bool(add_role or remove_role) + clear > 1:
        fail("name the roles, or use --add and --remove, or --clear: one of the three")

    def change(user: User) -> Mapping[str, Any]:
        if not (role or add_role or remove_role or clear):
            return user.server_data
        wanted = role or ([] if clear else _edited(user, add_role or [], remove_role or []))
        others = {key: value for key, value in user.server_data.items() if key != "roles"}
        return with_roles(others, _once(wanted)) or {}

    user = with_users(lambda services: _change(services, name, lambda user: UserChanges(server_data=change(user))))
    if as_json:
        print_json(_as_json(user))
    else:
        typer.echo(visible(f"{user.username}: {_as_row(user)['roles'] or 'no roles'}"))


@app.command()
def set_data(
    name: Name, server_data: ServerData = None, client_data: ClientData = None, as_json: JsonOption = False
) -> None:
    """
    Replace a user's data as a whole. Live sessions follow.

    Example: python -m tornado_ds users set-data alice --server-data '{"roles": ["editor"], "team": "blue"}'
    """
    if server_data is None and client_data is None:
        fail("say what to set: --server-data, --client-data or both")
    changes = UserChanges(
        server_data=_parse("--server-data", server_data), client_data=_parse("--client-data", client_data)
    )
    user = with_users(lambda services: _change(services, name, lambda _: changes))
    _report(user, "{name} has these data now.", as_json=as_json)


@app.command()
def disable(name: Name, as_json: JsonOption = False) -> None:
    """
    Let a user log in no more, and end all of the user's sessions.

    Example: python -m tornado_ds users disable alice
    """
    user = with_users(lambda services: _change(services, name, lambda _: UserChanges(disabled=True)))
    _report(user, "{name} is disabled; all sessions have ended.", as_json=as_json)


@app.command()
def enable(name: Name, as_json: JsonOption = False) -> None:
    """
    Let a user who was disabled log in again.

    Example: python -m tornado_ds users enable alice
    """
    user = with_users(lambda services: _change(services, name, lambda _: UserChanges(disabled=False)))
    _report(user, "{name} is enabled.", as_json=as_json)


@app.command()
def remove(
    name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, as_json: JsonOption = False
) -> None:
    """
    Remove a user for good, and end all of the user's sessions; asks first.

    Example: python -m tornado_ds users remove alice --yes
    """
    if not yes:
        username = with_users(lambda services: _existing(services, name)).username
        ask(f"Remove {username} for good?")
    user = with_users(lambda services: services.accounts.remove(name))
    _report(user, "{name} was removed; all sessions have ended.", as_json=as_json)


async def _existing(services: Services, name: str) -> User:
    user = await services.users.get(name)
    if user is None:
        fail(f"there is no user {name!r}")
    return user


async def _change(services: Services, name: str, plan: Callable[[User], UserChanges]) -> User:
    """Apply what *plan* makes of the user; what is so already is not written."""
    async with services.sessions.transaction():
        user = await _existing(services, name)
        changes = drop_unchanged(plan(user), user)
        return user if changes == UserChanges() else await services.accounts.change(user.username, changes)


async def _check_new(services: Services, new: User) -> None:
    services.accounts.check(new)
    if (user := await services.users.get(new.username)) is not None:
        fail(f"there is a user {user.username!r} already")


def _edited(user: User, more: Sequence[str], less: Sequence[str]) -> list[str]:
    present = user.server_data.get("roles", [])
    if not _is_list_of_text(present):
        fail(f"server_data.roles of {user.username!r} is no list of text; set it with users roles NAME ROLE...")
    return [role for role in [*present, *more] if role not in less]


def _once(roles: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(roles))


def _is_list_of_text(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _parse(option: str, text: str | None) -> dict[str, Any] | None:
    try:
        return None if text is None else parse_object(text)
    except SeedError as exc:
        fail(f"{option}: {exc}")


def _read_password(username: str, *, from_stdin: bool) -> str:
    if from_stdin:
        return _read_line()
    # Asked outside of the event loop, which would keep Ctrl-C to itself.
    try:
        password = getpass.getpass(f"Password for {visible(username)}: ")
        check_password(password, username=username, min_length=current_settings().passwords.min_length)
        again = getpass.getpass("The same once more: ")
    except EOFError as exc:
        raise typer.Abort from exc
    if again != password:
        fail("the two passwords differ")
    return password


def _refuse_unless_asked(*, from_stdin: bool) -> None:
    if not from_stdin and not sys.stdin.isatty():
        fail("there is no terminal to ask for the password: give it with --password-stdin")


def _read_line() -> str:
    try:
        text = sys.stdin.buffer.read(_MAX_LINE).decode()
    except UnicodeDecodeError:
        fail("the password on standard input is not UTF-8")
    password = text.removesuffix("\n").removesuffix("\r")
    if "\n" in password:
        fail("standard input must hold the password and nothing else, on one line")
    return password


def _report(user: User, text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(user))
    else:
        typer.echo(visible(text.format(name=user.username)))


def _as_json(user: User) -> dict[str, Any]:
    return {
        "username": user.username,
        "server_data": dict(user.server_data),
        "client_data": dict(user.client_data),
        "version": user.version,
        "disabled": user.is_disabled,
        "created_at": _time(user.created_at),
        "updated_at": _time(user.updated_at),
    }


def _as_row(user: User) -> dict[str, Any]:
    return {
        "username": user.username,
        "roles": _listed(user.server_data.get("roles")),
        "disabled": "yes" if user.is_disabled else "",
        "created_at": _time(user.created_at),
    }


def _listed(roles: object) -> object:
    return ", ".join(roles) if _is_list_of_text(roles) else roles


def _time(seconds: int) -> str | None:
    """Return a moment in ISO 8601; None for 0, with which a store says that it does not know."""
    return iso(seconds) if seconds else None
