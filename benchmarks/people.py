"""Users and sessions by the thousand, written through the program's own services."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import insert

from benchmarks.traffic import CLIENT_DATA, SERVER_DATA, settings_of, username_of
from tornado_ds.app import open_database, open_services, prepare_database
from tornado_ds.passwords import PasswordHasher
from tornado_ds.sessions import OpenSession
from tornado_ds.storage.models import sessions
from tornado_ds.users import User

PASSWORD = "correct-horse-battery-staple"


def add_people(folder: Path, many: int, *, cost: int = 4) -> list[str]:
    """Add users who all have `PASSWORD`, and return their names."""
    names = [username_of(number) for number in range(many)]
    password_hash = hash_of_password(cost)
    add_users(folder, [User(name, password_hash, SERVER_DATA, CLIENT_DATA) for name in names])
    return names


def add_users(folder: Path, users: Sequence[User]) -> None:
    """Add users as they are, whether the program would take them or not."""

    async def run() -> None:
        settings = settings_of(folder)
        await prepare_database(settings)
        async with open_services(settings, seconds=60) as services:
            await services.users.add(users)

    asyncio.run(run())


def hash_of_password(cost: int) -> str:
    """Return a bcrypt hash of `PASSWORD`."""
    hasher = PasswordHasher(cost=cost)
    try:
        return hasher.hash_now(PASSWORD)
    finally:
        hasher.close()


def open_sessions(folder: Path, names: Sequence[str]) -> list[OpenSession]:
    """Open a session for each of *names*, without a login."""

    async def run() -> list[OpenSession]:
        async with open_services(settings_of(folder), seconds=60) as services:
            users = await services.users.get_many(names)
            async with services.sessions.transaction():
                return [await services.sessions.open(users[name], user_agent="benchmark") for name in names]

    return asyncio.run(run())


def add_sessions(folder: Path, names: Sequence[str]) -> None:
    """Write a live session for each of *names*, in bulk and without tokens."""
    now = int(time.time())
    rows = [
        {
            "sid": f"{number:032x}",
            "username": name,
            "created_at": now,
            "expires_at": now + 14 * 86400,
            "renewed_at": now,
            "token_expires_at": now + 12 * 3600,
            "address": "203.0.113.17",
            "user_agent": "benchmark",
        }
        for number, name in enumerate(names)
    ]

    async def run() -> None:
        async with open_database(settings_of(folder), seconds=60) as database, database.transaction() as connection:
            await connection.execute(insert(sessions), rows)

    asyncio.run(run())


def end_sessions(folder: Path, username: str) -> int:
    """End all sessions of a user, and return how many there were."""

    async def run() -> int:
        async with open_services(settings_of(folder), seconds=60) as services:
            return len(await services.sessions.end_all(username, reason="ended_by_operator"))

    return asyncio.run(run())


def clear_failures(folder: Path) -> None:
    """Forget all failed logins, so that nobody is throttled."""

    async def run() -> None:
        async with open_services(settings_of(folder), seconds=60) as services:
            await services.throttle.clear_all()

    asyncio.run(run())
