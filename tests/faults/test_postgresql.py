"""PostgreSQL behind a line that is slow, dead, cut or forgotten: an answer in time, and back at once."""

import asyncio

import pytest
from sqlalchemy import text

from tests.proxy import Proxy
from tests.web.browser import PASSWORD
from tornado_ds.errors import StorageError
from tornado_ds.services import Services
from tornado_ds.storage.database import Database

# A second for the query, and less than another one for a goodbye on a dead line.
IN_TIME = 1.7

pytestmark = pytest.mark.gen_test(timeout=30)


async def test_query_ends_in_time_when_the_line_is_dead(database: Database, proxy: Proxy) -> None:
    """No rollback and no goodbye is waited for, whether the connection was there before or not."""
    await _use(database)
    proxy.hole()

    for _ in range(2):
        async with asyncio.timeout(IN_TIME):
            with pytest.raises(StorageError, match=r"^the database "):
                await _use(database)
    proxy.fill()

    await _use(database)


async def test_transaction_ends_in_time_when_the_line_dies_in_it(database: Database, proxy: Proxy) -> None:
    """The rollback that nobody would answer is not waited for either."""
    async with asyncio.timeout(IN_TIME):
        with pytest.raises(StorageError, match=r"^the database "):
            await _lose_the_line(database, proxy)
    proxy.fill()

    await _use(database)


async def test_all_connections_are_replaced_when_one_proves_dead(patient_database: Database, proxy: Proxy) -> None:
    """A firewall that forgot ten connections costs one failure, not ten."""
    await asyncio.gather(*(_use(patient_database) for _ in range(10)))
    proxy.forget()
    with pytest.raises(StorageError):
        await _use(patient_database)

    outcomes = [await _outcome(patient_database) for _ in range(10)]

    assert outcomes == [None] * 10


async def test_next_query_works_when_the_server_has_hung_up(patient_database: Database, proxy: Proxy) -> None:
    """A connection that was closed meanwhile is noticed before it is used."""
    await asyncio.gather(*(_use(patient_database) for _ in range(5)))
    proxy.cut()
    await proxy.wait_until_idle()

    outcomes = await asyncio.gather(*(_outcome(patient_database) for _ in range(5)))

    assert outcomes == [None] * 5


async def test_close_ends_in_time_when_the_line_is_dead(database: Database, proxy: Proxy) -> None:
    """A server that stops does not wait for a database that is gone."""
    await asyncio.gather(*(_use(database) for _ in range(5)))
    proxy.hole()

    async with asyncio.timeout(IN_TIME):
        await database.close()


@pytest.mark.usefixtures("alice")
async def test_login_ends_in_time_when_the_database_is_slow(services: Services, proxy: Proxy) -> None:
    """What a login asks of the database takes 1.3 s all in all, however many questions there are."""
    await services.accounts.log_in("alice", PASSWORD)
    proxy.delay = 0.07

    async with asyncio.timeout(1.8):
        with pytest.raises(StorageError, match=r"^the database is too slow for a login$"):
            await services.accounts.log_in("alice", PASSWORD)


async def _use(database: Database) -> None:
    async with database.read() as connection:
        await connection.execute(text("SELECT 1"))


async def _outcome(database: Database) -> str | None:
    try:
        await _use(database)
    except StorageError as exc:
        return str(exc)
    return None


async def _lose_the_line(database: Database, proxy: Proxy) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("SELECT 1"))
        proxy.hole()
        await connection.execute(text("SELECT 2"))
