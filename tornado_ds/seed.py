"""Seeding: users from a file, checked as a whole before the first is written. Also `python -m tornado_ds.seed FILE`."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import orjson

from tornado_ds.accounts import Accounts
from tornado_ds.audit import AuditEntry
from tornado_ds.errors import UserDataError
from tornado_ds.passwords import MAX_WAITING, PasswordHasher
from tornado_ds.seed_entries import Entry, row_error
from tornado_ds.services import Services
from tornado_ds.users import User, UserChanges, with_data

# Changes are committed so many at a time, and a server that runs meanwhile gets its turn in between:
# it waits a second for SQLite's only writer, and asks again in steps of up to a tenth.
CHUNK = 20
TURN_SECONDS = 0.05

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Called with what is being done, how often it is done, and of how many times.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedReport:
    """The names of the users to whom each thing happened."""

    added: list[str]
    updated: list[str]
    unchanged: list[str]
    left_alone: list[str]


async def seed(
    services: Services,
    entries: Sequence[Entry],
    *,
    update: bool = False,
    update_passwords: bool = False,
    dry_run: bool = False,
    progress: Progress = lambda doing, done, total: None,
) -> SeedReport:
    """
    Add the users of *entries* that there are not, and report what became of each.

    Users that exist are left alone, unless *update* changes their data or
    *update_passwords* their data and passwords; live sessions follow. New
    users are added all or none, then the others are changed in steps; whatever
    stops it, the same call again does what is left.

    Raises:
        SeedError: A new user has no password, or somebody's data do not fit into a token; nothing was written.
    """
    stored = await services.users.get_many([entry.username for entry in entries])
    new = [entry for entry in entries if entry.username not in stored]
    existing = [(entry, stored[entry.username]) for entry in entries if entry.username in stored]
    _refuse_without_password(new)
    for entry in new:
        _check(services.accounts, entry, User(entry.username, ""))
    if not (update or update_passwords):
        changes, unchanged, left_alone = [], [], existing
    else:
        plans = await _plan(services, existing, update_passwords, progress)
        changes = [plan for plan in plans if plan.is_needed]
        unchanged, left_alone = [plan for plan in plans if not plan.is_needed], []
    if not dry_run:
        await _write(services, new, changes, progress)
    return SeedReport(
        added=[entry.username for entry in new],
        updated=[plan.user.username for plan in changes],
        unchanged=[plan.user.username for plan in unchanged],
        left_alone=[user.username for _, user in left_alone],
    )


def drop_unchanged(changes: UserChanges, user: User) -> UserChanges:
    """Return *changes* without what is so already; data are compared as JSON, where 1 is not true."""
    return replace(
        changes,
        server_data=_if_other(changes.server_data, user.server_data),
        client_data=_if_other(changes.client_data, user.client_data),
        disabled=None if changes.disabled == user.is_disabled else changes.disabled,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is to change in a user."""

    entry: Entry
    user: User
    changes: UserChanges
    has_new_password: bool

    @property
    def is_needed(self) -> bool:
        return self.has_new_password or self.changes != UserChanges()


def _refuse_without_password(entries: Iterable[Entry]) -> None:
    for entry in entries:
        if not entry.has_password:
            raise row_error(entry.line, entry.username, "a new user needs a password or a password_hash")


async def _plan(
    services: Services, existing: Sequence[tuple[Entry, User]], with_passwords: bool, progress: Progress
) -> list[_Plan]:
    data_changes = [_data_changes(services.accounts, entry, user) for entry, user in existing]
    passwords = services.passwords
    has_new = await _have_new_passwords(passwords, existing, progress) if with_passwords else [False] * len(existing)
    return [
        _Plan(entry=entry, user=user, changes=changes, has_new_password=is_new)
        for (entry, user), changes, is_new in zip(existing, data_changes, has_new, strict=True)
    ]


def _check(accounts: Accounts, entry: Entry, user: User) -> None:
    try:
        accounts.check(with_data(user, server_data=entry.server_data, client_data=entry.client_data))
    except UserDataError as exc:
        raise row_error(entry.line, entry.username, exc) from exc


def _data_changes(accounts: Accounts, entry: Entry, user: User) -> UserChanges:
    wanted = UserChanges(server_data=entry.server_data, client_data=entry.client_data, disabled=entry.disabled)
    changes = drop_unchanged(wanted, user)
    # As in `Accounts`: what is stored already may be as it is.
    if changes.server_data is not None or changes.client_data is not None:
        _check(accounts, entry, user)
    return changes


def _if_other(wanted: Mapping[str, Any] | None, stored: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return None if wanted is None or _as_json(wanted) == _as_json(stored) else wanted


def _as_json(data: Mapping[str, Any]) -> bytes:
    return orjson.dumps(dict(data), option=orjson.OPT_SORT_KEYS)


async def _have_new_passwords(
    passwords: PasswordHasher, existing: Sequence[tuple[Entry, User]], progress: Progress
) -> list[bool]:
    async def is_new(pair: tuple[Entry, User]) -> bool:
        entry, user = pair
        if entry.password is not None:
            return not await passwords.verify(entry.password, user.password_hash)
        return entry.password_hash not in (None, user.password_hash)

    return await _on_all_cores(is_new, existing, lambda done: progress("Comparing passwords", done, len(existing)))


async def _write(services: Services, new: Sequence[Entry], plans: Sequence[_Plan], progress: Progress) -> None:
    secret = [*new, *(plan.entry for plan in plans if plan.has_new_password)]
    hashes = await _hash_all(services.passwords, secret, progress)
    now = int(services.clock.now())
    if new:
        async with services.sessions.transaction():
            await services.users.add([_user(entry, hashes[entry.username], now) for entry in new])
            # One for all: who they are says the user store, with the time of each.
            await services.audit.record(AuditEntry(event="users.seeded", detail=f"{len(new)} added"))
    for start in range(0, len(plans), CHUNK):
        progress("Changing users", start, len(plans))
        async with services.sessions.transaction():
            for plan in plans[start : start + CHUNK]:
                changes = replace(plan.changes, password_hash=hashes.get(plan.entry.username))
                await services.accounts.change(plan.user.username, changes)
        await asyncio.sleep(TURN_SECONDS)


def _user(entry: Entry, password_hash: str, now: int) -> User:
    return User(
        entry.username,
        password_hash,
        server_data=entry.server_data or {},
        client_data=entry.client_data or {},
        disabled_at=now if entry.disabled else None,
    )


async def _hash_all(passwords: PasswordHasher, entries: Sequence[Entry], progress: Progress) -> dict[str, str]:
    """Return the hash of each entry, by username."""
    clear = [entry for entry in entries if entry.password is not None]
    hashes = await _on_all_cores(
        lambda entry: passwords.hash(entry.password or ""),
        clear,
        lambda done: progress("Hashing passwords", done, len(clear)),
    )
    ready = {entry.username: entry.password_hash for entry in entries if entry.password_hash is not None}
    return ready | {entry.username: made for entry, made in zip(clear, hashes, strict=True)}


async def _on_all_cores(
    work: Callable[[_Item], Awaitable[_Result]], items: Sequence[_Item], report: Callable[[int], None]
) -> list[_Result]:
    """Return what *work* makes of each item, as many at a time as the hasher lets wait."""
    results: dict[int, _Result] = {}
    numbered = iter(enumerate(items))

    async def keep_working() -> None:
        for number, item in numbered:
            results[number] = await work(item)
            report(len(results))

    await asyncio.gather(*(keep_working() for _ in range(MAX_WAITING)))
    return [results[number] for number in range(len(items))]


if __name__ == "__main__":
    from tornado_ds.cli import run

    sys.exit(run(["seed", *sys.argv[1:]]))
