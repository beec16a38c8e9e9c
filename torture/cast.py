"""The people of a play: who is logged in, changed, thrown out, disabled, and who logs in all the time."""

import asyncio
from dataclasses import dataclass

from benchmarks.people import PASSWORD
from tornado_ds.app import open_services
from tornado_ds.passwords import PasswordHasher
from tornado_ds.services import Services
from tornado_ds.settings import Settings
from tornado_ds.users import User, UserChanges

PEOPLE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """
    Tokens, each of a session of its own, and the names of people who have `PASSWORD`.

    *hot* is of a user of whom there is no news, *changed* older than its user's
    data; the sessions of *ended* and *disabled* are over.
    """

    hot: str
    changed: str
    ended: str
    disabled: str
    people: list[str]


def make_cast(settings: Settings) -> Cast:
    """Return a cast in the database of *settings*, which has our tables."""

    async def run() -> Cast:
        async with open_services(settings, seconds=60) as services:
            return await _make(services)

    return asyncio.run(run())


def open_session(settings: Settings, username: str) -> tuple[str, str]:
    """Return sid and token of a new session, opened beside the server."""

    async def run() -> tuple[str, str]:
        async with open_services(settings) as services:
            user = await services.users.get(username)
            assert user is not None
            opened = await services.sessions.open(user, user_agent="elsewhere")
        return opened.session.sid, opened.token

    return asyncio.run(run())


def end_session(settings: Settings, sid: str) -> None:
    """
    End a session beside the server, as the command does.

    Raises:
        StorageError: That is not possible at the moment.
    """

    async def run() -> None:
        async with open_services(settings) as services:
            await services.sessions.end(sid, reason="ended_by_operator")

    asyncio.run(run())


async def _make(services: Services) -> Cast:
    hasher = PasswordHasher(cost=4)
    password_hash = hasher.hash_now(PASSWORD)
    hasher.close()
    people = [f"person-{number}" for number in range(PEOPLE)]
    names = ["hot", "changed", "ended", "disabled", *people]
    await services.users.add([User(name, password_hash, {"roles": ["guest"]}) for name in names])
    users = await services.users.get_many(names)
    opened = {name: await services.sessions.open(users[name], user_agent="cast") for name in names[:4]}
    await services.accounts.change("changed", UserChanges(server_data={"roles": ["editor"]}))
    await services.sessions.end(opened["ended"].session.sid, reason="logout")
    await services.accounts.change("disabled", UserChanges(disabled=True))
    return Cast(
        hot=opened["hot"].token,
        changed=opened["changed"].token,
        ended=opened["ended"].token,
        disabled=opened["disabled"].token,
        people=people,
    )
