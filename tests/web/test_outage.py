"""What pages, logins and checks answer while the database is locked, gone or damaged: 503 at worst, and only then."""

import sqlite3
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import orjson
import pytest

from tests.web.browser import PASSWORD, Browser, json_of
from tests.web.conftest import SECRET, NewBrowser
from tornado_ds.gate import Verdict
from tornado_ds.services import Services
from tornado_ds.users import UserChanges

pytestmark = pytest.mark.gen_test(timeout=30)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Another program writes, and does not come to an end."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def removed(file: Path) -> Iterator[None]:
    """The file was moved away, and comes back."""
    elsewhere = file.rename(file.with_name("elsewhere"))
    yield
    elsewhere.rename(file)


@contextmanager
def damaged(file: Path) -> Iterator[None]:
    """Another file is in its place, full of noise, and goes again."""
    with closing(sqlite3.connect(file)) as other:
        # Otherwise the newest pages are still in the log beside it.
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    good = file.rename(file.with_name("good"))
    file.write_bytes(good.read_bytes()[:4096] + b"\xa5" * 40960)
    yield
    good.replace(file)


@pytest.mark.parametrize(
    ("fault", "can_read"),
    [
        pytest.param(locked, True, id="locked"),
        pytest.param(removed, False, id="removed"),
        pytest.param(damaged, False, id="damaged"),
    ],
)
@pytest.mark.usefixtures("alice")
async def test_everybody_gets_the_right_answer_or_503_during_an_outage(
    services: Services,
    new_browser: NewBrowser,
    sqlite_file: Path,
    fault: Callable[[Path], AbstractContextManager[None]],
    can_read: bool,
) -> None:
    """Who is logged in stays so, who is not stays out, nobody is blamed, and afterwards all is as before."""
    hot, changed, ended = [await _token_of(services, name) for name in ("hot", "changed", "ended")]
    await services.accounts.change("changed", UserChanges(server_data={"roles": ["editor"]}))
    await services.sessions.end_all("ended", reason="logout")

    with fault(sqlite_file):
        during = [await _check(services, token) for token in (hot, changed, ended)]
        page = await _page(new_browser(), hot)
        logins = [(await new_browser().log_in(password=password)).code for password in (PASSWORD, "wrong")]
    after = [await _check(services, token) for token in (hot, changed, ended)]
    login = (await new_browser().log_in()).code

    assert during == [(200, "ok"), (200, "ok") if can_read else (503, "unavailable"), (403, "session_ended")]
    assert page == "hot"
    assert logins == [503, 503]
    assert after == [(200, "ok"), (200, "ok"), (403, "session_ended")]
    assert login == 303


async def _token_of(services: Services, name: str) -> str:
    user = await services.accounts.add(name, PASSWORD)
    return (await services.sessions.open(user)).token


async def _check(services: Services, token: str) -> tuple[int, str]:
    verdict = services.gate.decide(
        orjson.dumps({"connectionData": {}, "authData": {"token": token}}),
        authorization=f"Basic {b64encode(f'deepstream:{SECRET}'.encode()).decode()}",
        content_type="application/json",
    )
    verdict = verdict if isinstance(verdict, Verdict) else await verdict
    return verdict.status, verdict.code


async def _page(browser: Browser, token: str) -> str:
    browser.cookies["access_token"] = token
    return str(json_of(await browser.ask("/session"))["username"])
