"""`python -m torture.writer FOLDER ROUND`: writes users and sessions, and prints each once it is acknowledged."""

import asyncio
import sys
from itertools import count
from pathlib import Path

from benchmarks.people import PASSWORD
from benchmarks.traffic import settings_of
from tornado_ds.app import open_services
from tornado_ds.seed import seed
from tornado_ds.seed_entries import Entry
from tornado_ds.services import Services
from tornado_ds.settings import PasswordSettings

SEEDED_AT_ONCE = 10


async def write(folder: Path, name: str) -> None:
    """Write until somebody ends this."""
    cheap = PasswordSettings(bcrypt_cost=4, allow_weak_cost=True)
    settings = settings_of(folder).model_copy(update={"passwords": cheap})
    async with open_services(settings, seconds=30) as services:
        for number in count():
            await _write_once(services, f"{name}-{number}")


async def _write_once(services: Services, name: str) -> None:
    user = await services.accounts.add(name, PASSWORD)
    _acknowledge("user", name)
    opened = await services.sessions.open(user)
    _acknowledge("session", opened.session.sid)
    await services.sessions.end(opened.session.sid, reason="ended_by_operator")
    _acknowledge("end", opened.session.sid)
    names = [f"{name}-{number}" for number in range(SEEDED_AT_ONCE)]
    await seed(services, [Entry(line=1, username=each, password=PASSWORD) for each in names])
    for each in names:
        _acknowledge("user", each)


def _acknowledge(what: str, which: str) -> None:
    print(what, which, flush=True)


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), sys.argv[2]))
