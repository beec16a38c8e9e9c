from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import ManualClock
from tornado_ds.snapshot import SessionEvent, SessionSnapshot, Standing
from tornado_ds.tokens import Claims

NOW = 1_800_000_000


def ended(sid: str, *, seq: int = 1, reason: str = "logout", expires_at: int = NOW + 3600) -> SessionEvent:
    """The end of a session of alice."""
    return SessionEvent(
        kind="session.ended",
        username="alice",
        sid=sid,
        reason=reason,
        seq=seq,
        created_at=NOW,
        expires_at=expires_at,
    )


def changed(version: int, *, seq: int = 1, username: str = "alice", expires_at: int = NOW + 3600) -> SessionEvent:
    """A change of a user."""
    return SessionEvent(
        kind="user.changed", username=username, version=version, seq=seq, created_at=NOW, expires_at=expires_at
    )


def claims_of(sid: str, version: int, username: str = "alice") -> Claims:
    """What a token says."""
    return Claims(
        username=username,
        sid=sid,
        version=version,
        issued_at=NOW,
        expires_at=NOW + 3600,
        server_data={},
        client_data={},
    )


def fresh_snapshot(clock: ManualClock) -> SessionSnapshot:
    """A snapshot that knows of nothing, read just now."""
    snapshot = SessionSnapshot(clock=clock, stale_for=300)
    snapshot.mark_read()
    return snapshot


@pytest.mark.parametrize(
    ("expected", "events"),
    [
        pytest.param(Standing.LIVE, [], id="nothing-happened"),
        pytest.param(Standing.LIVE, [ended("another")], id="another-session-ended"),
        pytest.param(Standing.LIVE, [changed(9, username="bob")], id="another-user-changed"),
        pytest.param(Standing.LIVE, [changed(3)], id="change-that-the-token-knows"),
        pytest.param(Standing.LIVE, [changed(2)], id="change-older-than-the-token"),
        pytest.param(Standing.STALE, [changed(4)], id="changed"),
        pytest.param(Standing.ENDED, [ended("sid")], id="ended"),
        pytest.param(Standing.ENDED, [ended("sid", reason="password_changed"), changed(4, seq=2)], id="new-password"),
        pytest.param(Standing.DISABLED, [ended("sid", reason="disabled"), changed(4, seq=2)], id="disabled"),
        pytest.param(Standing.ENDED, [ended("sid", reason="removed")], id="removed"),
        pytest.param(Standing.LIVE, [replace(ended("sid"), kind="session.renewed")], id="renewed"),
        pytest.param(Standing.LIVE, [replace(ended("sid"), sid=None)], id="end-of-nothing"),
        pytest.param(Standing.LIVE, [replace(changed(4), version=None)], id="change-to-nothing"),
    ],
)
def test_standing_follows_the_events(clock: ManualClock, expected: Standing, events: list[SessionEvent]) -> None:
    """Each kind of event has its effect on its own session or user, and no other."""
    snapshot = fresh_snapshot(clock)

    snapshot.apply(events)

    assert expected == snapshot.standing(claims_of("sid", 3))


def test_standing_is_unknown_before_the_feed_was_read(clock: ManualClock) -> None:
    """A process that has not read the feed lets nobody in."""
    snapshot = SessionSnapshot(clock=clock, stale_for=300)

    assert snapshot.standing(claims_of("sid", 3)) is Standing.UNKNOWN
    assert snapshot.age is None
    assert not snapshot.is_fresh


@pytest.mark.parametrize(
    ("expected", "elapsed"),
    [(Standing.LIVE, 0), (Standing.LIVE, 300), (Standing.UNKNOWN, 300.001), (Standing.UNKNOWN, 10**6)],
)
def test_standing_is_unknown_when_the_feed_is_away_for_too_long(
    clock: ManualClock, expected: Standing, elapsed: float
) -> None:
    """What is known counts for `webhook.stale_for`, and for no moment longer."""
    snapshot = fresh_snapshot(clock)

    clock.advance(elapsed)

    assert expected is snapshot.standing(claims_of("sid", 3))
    assert elapsed == pytest.approx(snapshot.age)


def test_standing_stays_ended_when_the_feed_is_away_for_too_long(clock: ManualClock) -> None:
    """An end that is known is no matter of freshness; a change is."""
    snapshot = fresh_snapshot(clock)
    snapshot.apply([ended("sid"), ended("off", reason="disabled", seq=2), changed(4, seq=3)])

    clock.advance(301)

    assert snapshot.standing(claims_of("sid", 3)) is Standing.ENDED
    assert snapshot.standing(claims_of("off", 3)) is Standing.DISABLED
    assert snapshot.standing(claims_of("else", 3)) is Standing.UNKNOWN


def test_standing_is_live_again_when_the_feed_is_back(clock: ManualClock) -> None:
    """After an outage nobody has to restart anything."""
    snapshot = fresh_snapshot(clock)
    clock.advance(301)

    snapshot.mark_read()

    assert snapshot.standing(claims_of("sid", 3)) is Standing.LIVE


def test_freshness_does_not_depend_on_the_date(clock: ManualClock) -> None:
    """A clock that is set forwards or backwards makes nothing stale, and nothing fresh."""
    snapshot = fresh_snapshot(clock)

    clock.set(NOW - 10**6)
    assert snapshot.is_fresh
    clock.set(NOW + 10**6)
    assert snapshot.is_fresh
    clock.advance(301)
    clock.set(NOW)
    assert not snapshot.is_fresh


EVENTS = [
    ended("a", seq=1),
    changed(2, seq=2),
    ended("b", seq=3, reason="disabled"),
    changed(3, seq=4),
    changed(7, seq=5, username="bob"),
    changed(4, seq=6),
    replace(ended("c", seq=7), kind="session.renewed"),
]
TOKENS = [claims_of(sid, version) for sid in "abcd" for version in (1, 2, 3, 4)]


@given(events=st.permutations(EVENTS), again=st.lists(st.sampled_from(EVENTS)), cut=st.integers(0, len(EVENTS)))
def test_apply_makes_the_same_of_events_in_any_order_and_number(
    events: list[SessionEvent], again: list[SessionEvent], cut: int
) -> None:
    """Late, doubled and shuffled events lead to the same standings as the tidy feed."""
    clock = ManualClock(NOW)
    tidy, shuffled = fresh_snapshot(clock), fresh_snapshot(clock)

    tidy.apply(EVENTS)
    for portion in (events[:cut], again, events[cut:], again):
        shuffled.apply(portion)

    assert [tidy.standing(claims) for claims in TOKENS] == [shuffled.standing(claims) for claims in TOKENS]
    assert len(tidy) == len(shuffled)


def test_apply_forgets_what_no_token_can_be_about_any_more(clock: ManualClock) -> None:
    """Memory holds one token lifetime of ends and changes, not all there ever were."""
    snapshot = fresh_snapshot(clock)
    snapshot.apply([ended("short", expires_at=NOW + 30), changed(2, username="bob", expires_at=NOW + 30)])
    snapshot.apply([ended("long", expires_at=NOW + 600), changed(2, username="eve", expires_at=NOW + 600)])
    assert len(snapshot) == 4

    clock.advance(SessionSnapshot.SWEEP_SECONDS)
    snapshot.apply([])

    assert len(snapshot) == 2
    assert snapshot.standing(claims_of("long", 9)) is Standing.ENDED


def test_apply_keeps_what_a_token_can_still_be_about(clock: ManualClock) -> None:
    """Sweeping never lets an ended session back in before its last token has run out."""
    snapshot = fresh_snapshot(clock)
    snapshot.apply([ended("sid", expires_at=NOW + 3600)])

    for _ in range(59):
        clock.advance(61)
        snapshot.mark_read()
        snapshot.apply([])
        assert snapshot.standing(claims_of("sid", 9)) is Standing.ENDED
