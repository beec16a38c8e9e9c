"""Session ids are typed on command lines, too."""

import asyncio
import re

from tests.fakes import ManualClock
from tornado_ds.audit import Audit
from tornado_ds.metrics import Metrics
from tornado_ds.sessions import Sessions
from tornado_ds.snapshot import SessionSnapshot
from tornado_ds.storage.memory import MemoryAuditStore, MemorySessionStore
from tornado_ds.tokens import TokenService
from tornado_ds.users import User


def test_sid_is_no_option_of_a_command_whatever_it_is_made_of(tokens: TokenService, clock: ManualClock) -> None:
    """No sid of five hundred begins with a dash, and none needs quotes."""
    sessions = Sessions(
        MemorySessionStore(),
        tokens=tokens,
        snapshot=SessionSnapshot(clock=clock, stale_for=300),
        audit=Audit(MemoryAuditStore(), clock=clock, keep=3600),
        clock=clock,
        idle_timeout=3600,
        absolute_timeout=86400,
        metrics=Metrics(),
    )

    async def open_many() -> list[str]:
        return [(await sessions.open(User("alice", "hash"))).session.sid for _ in range(500)]

    sids = asyncio.run(open_many())

    assert [sid for sid in sids if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{20,}", sid)] == []
