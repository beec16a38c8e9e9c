"""What every store of sessions and events promises, on memory, SQLite and PostgreSQL."""

from dataclasses import replace
from typing import Any

import pytest

from tornado_ds.sessions import Session, SessionStore
from tornado_ds.snapshot import SessionEvent

NOW = 1_800_000_000

pytestmark = pytest.mark.gen_test(timeout=30)


async def test_get_returns_the_session_when_it_was_added(session_store: SessionStore) -> None:
    """A session comes back with every field as it was added."""
    session = _session("one", address="2001:db8::1", user_agent="Mozilla/5.0 (😀)", label="backend")
    await session_store.add(session)

    found = await session_store.get("one")

    assert found == session


async def test_get_returns_none_when_there_is_no_such_session(session_store: SessionStore) -> None:
    """An unknown session is no error."""
    assert await session_store.get("one") is None


async def test_count_is_of_sessions_that_live(session_store: SessionStore) -> None:
    """Neither what has ended nor what has run out is counted."""
    await session_store.add(_session("live"))
    await session_store.add(_session("bobs", username="bob"))
    await session_store.add(_session("over", token_expires_at=NOW))
    await session_store.add(_session("ended", ended_at=NOW - 1, end_reason="logout"))

    assert await session_store.count(live_at=NOW) == 2


async def test_list_is_newest_first(session_store: SessionStore) -> None:
    """The session that a person just opened is the first that they see."""
    await session_store.add(_session("old", created_at=NOW - 2))
    await session_store.add(_session("new", created_at=NOW))
    await session_store.add(_session("middle", created_at=NOW - 1))

    listed = await session_store.list()

    assert [session.sid for session in listed] == ["new", "middle", "old"]


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        pytest.param({}, ["bobs", "ended", "live", "over"], id="all"),
        pytest.param({"username": "alice"}, ["ended", "live", "over"], id="of-one-user"),
        pytest.param({"live_at": NOW}, ["bobs", "live"], id="live"),
        pytest.param({"username": "alice", "live_at": NOW}, ["live"], id="live-of-one-user"),
        pytest.param({"limit": 2}, ["bobs", "ended"], id="limited"),
        pytest.param({"username": "nobody"}, [], id="of-nobody"),
    ],
)
async def test_list_returns_the_sessions_that_match(
    session_store: SessionStore, which: dict[str, Any], expected: list[str]
) -> None:
    """Sessions are narrowed by user and by the moment when they live."""
    await session_store.add(_session("live"))
    await session_store.add(_session("over", token_expires_at=NOW))
    await session_store.add(_session("ended", ended_at=NOW - 1, end_reason="logout"))
    await session_store.add(_session("bobs", username="bob"))

    listed = await session_store.list(**which)

    assert [session.sid for session in listed] == expected


async def test_renew_moves_the_times_of_one_session(session_store: SessionStore) -> None:
    """A renewal changes two times of one session."""
    one, two = _session("one"), _session("two")
    await session_store.add(one)
    await session_store.add(two)

    await session_store.renew("one", renewed_at=NOW + 5, token_expires_at=NOW + 500)

    assert await session_store.get("one") == replace(one, renewed_at=NOW + 5, token_expires_at=NOW + 500)
    assert await session_store.get("two") == two


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        pytest.param({"sid": "one"}, ["one"], id="one"),
        pytest.param({"sid": "one", "username": "alice"}, ["one"], id="one-of-its-user"),
        pytest.param({"sid": "one", "username": "bob"}, [], id="one-of-somebody-else"),
        pytest.param({"username": "alice"}, ["one", "two"], id="all-of-a-user"),
        pytest.param({"username": "alice", "keep": "one"}, ["two"], id="all-of-a-user-but-one"),
        pytest.param({}, ["bobs", "one", "two"], id="of-everybody"),
        pytest.param({"keep": "bobs"}, ["one", "two"], id="of-everybody-but-one"),
        pytest.param({"sid": "ended"}, [], id="ended-already"),
        pytest.param({"sid": "over"}, [], id="run-out"),
        pytest.param({"sid": "unknown"}, [], id="unknown"),
    ],
)
async def test_end_ends_the_live_sessions_that_match(
    session_store: SessionStore, which: dict[str, Any], expected: list[str]
) -> None:
    """Only live sessions are ended, and exactly those come back, with the moment and the reason."""
    sessions = [
        _session("one"),
        _session("two"),
        _session("bobs", username="bob"),
        _session("over", token_expires_at=NOW),
        _session("ended", ended_at=NOW - 1, end_reason="logout"),
    ]
    for session in sessions:
        await session_store.add(session)

    ended = await session_store.end(at=NOW, reason="replaced", **which)

    after = [
        replace(session, ended_at=NOW, end_reason="replaced") if session.sid in expected else session
        for session in sessions
    ]
    assert _sorted(ended) == _sorted([session for session in after if session.sid in expected])
    assert _sorted(await session_store.list()) == _sorted(after)


async def test_end_finds_nothing_when_it_is_repeated(session_store: SessionStore) -> None:
    """A session ends once; the first reason stays."""
    await session_store.add(_session("one"))
    await session_store.end(at=NOW, reason="logout", sid="one")

    again = await session_store.end(at=NOW, reason="disabled", sid="one")

    session = await session_store.get("one")
    assert list(again) == []
    assert session is not None
    assert session.end_reason == "logout"


async def test_last_expiry_is_that_of_the_newest_token(session_store: SessionStore) -> None:
    """The last token of a user counts, also one of a session that has ended."""
    await session_store.add(_session("one", token_expires_at=NOW + 10))
    await session_store.add(_session("two", token_expires_at=NOW + 30, ended_at=NOW, end_reason="logout"))
    await session_store.add(_session("bobs", username="bob", token_expires_at=NOW + 50))

    expiries = [await session_store.last_expiry(name) for name in ("alice", "bob", "nobody")]

    assert expiries == [NOW + 30, NOW + 50, None]


async def test_record_numbers_events_in_the_order_given(session_store: SessionStore) -> None:
    """Events come back as they were recorded, with numbers that only grow."""
    events = [_event("one"), _changed("alice", 7), _event("two", reason="logout")]

    recorded = [*await session_store.record(events[:2]), *await session_store.record(events[2:])]

    assert [replace(event, seq=0) for event in recorded] == events
    assert [event.seq for event in recorded] == sorted({event.seq for event in recorded})
    assert list(await session_store.events(after=0)) == recorded


async def test_record_does_nothing_when_there_are_no_events(session_store: SessionStore) -> None:
    """Nothing happened, nothing is recorded."""
    recorded = await session_store.record([])

    assert list(recorded) == []
    assert list(await session_store.events(after=0)) == []


async def test_record_keeps_the_order_when_there_are_many(session_store: SessionStore) -> None:
    """Thousands of events at once, after ending everybody's sessions say, are numbered in order too."""
    events = [_event(f"sid{number}") for number in range(2500)]

    recorded = await session_store.record(events)

    assert [event.sid for event in recorded] == [event.sid for event in events]
    assert [event.seq for event in recorded] == sorted(event.seq for event in recorded)


async def test_events_returns_those_asked_for_in_order(session_store: SessionStore) -> None:
    """Events behind a number, with some before it, and without those that matter no more."""
    recorded = await session_store.record(
        [_event("0"), _event("1"), _event("2"), _event("3", expires_at=NOW), _event("4"), _event("5")]
    )
    numbers = [event.seq for event in recorded]

    behind = await session_store.events(after=numbers[3])
    also = await session_store.events(after=numbers[3], also=[numbers[0], numbers[2], 10**6])
    alive = await session_store.events(after=numbers[1], alive_at=NOW)
    limited = await session_store.events(after=0, limit=2)

    assert [[event.sid for event in events] for events in (behind, also, alive, limited)] == [
        ["4", "5"],
        ["0", "2", "4", "5"],
        ["2", "4", "5"],
        ["0", "1"],
    ]


async def test_kept_events_are_the_first_and_the_last_number(session_store: SessionStore) -> None:
    """A follower can tell from two numbers whether it missed something."""
    before = await session_store.kept_events()
    recorded = await session_store.record([_event("one"), _event("two"), _event("three")])

    after = await session_store.kept_events()

    assert before == (0, 0)
    assert after == (recorded[0].seq, recorded[-1].seq)


async def test_position_at_is_before_the_first_event_since(session_store: SessionStore) -> None:
    """Reading on from the position of a moment shows all that was recorded since."""
    recorded = await session_store.record([_event("old", created_at=NOW - 10), _event("new", created_at=NOW)])

    positions = [await session_store.position_at(moment) for moment in (NOW - 10, NOW - 9, NOW, NOW + 1)]

    old, new = (event.seq for event in recorded)
    assert positions == [old - 1, new - 1, new - 1, new]


async def test_prune_forgets_what_ran_out(session_store: SessionStore) -> None:
    """Old events and sessions go, the newest event stays, and no number is given out twice."""
    await session_store.add(_session("over", token_expires_at=NOW - 100))
    await session_store.add(_session("live"))
    recorded = await session_store.record(
        [_event("1", expires_at=NOW - 1), _event("2"), _event("3", expires_at=NOW - 1)]
    )

    pruned = await session_store.prune(events_before=NOW, sessions_before=NOW, limit=10)
    again = await session_store.prune(events_before=NOW, sessions_before=NOW, limit=10)

    (later,) = await session_store.record([_event("4")])
    assert (pruned, again) == (2, 0)
    assert [session.sid for session in await session_store.list()] == ["live"]
    assert [event.sid for event in await session_store.events(after=0)] == ["2", "3", "4"]
    assert later.seq > recorded[-1].seq


async def test_prune_stops_at_the_limit(session_store: SessionStore) -> None:
    """Pruning goes in small steps that hold up nobody."""
    await session_store.record([_event(str(number), expires_at=NOW - 1) for number in range(5)])

    steps = [await session_store.prune(events_before=NOW, sessions_before=NOW, limit=3) for _ in range(3)]

    assert steps == [3, 1, 0]


def _session(sid: str, **fields: Any) -> Session:
    defaults = {
        "username": "alice",
        "created_at": NOW - 10,
        "renewed_at": NOW - 10,
        "expires_at": NOW + 1000,
        "token_expires_at": NOW + 100,
    }
    return Session(sid=sid, **{**defaults, **fields})


def _event(sid: str, **fields: Any) -> SessionEvent:
    defaults = {"username": "alice", "created_at": NOW, "expires_at": NOW + 100}
    return SessionEvent(kind="session.ended", sid=sid, **{**defaults, **fields})


def _changed(username: str, version: int) -> SessionEvent:
    return SessionEvent(kind="user.changed", username=username, version=version, created_at=NOW, expires_at=NOW + 100)


def _sorted(sessions: Any) -> list[Session]:
    return sorted(sessions, key=lambda session: session.sid)
