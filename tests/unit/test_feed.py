import asyncio
from collections.abc import Collection, Iterable, Sequence

import pytest
from structlog.testing import capture_logs

from tests.fakes import ManualClock
from tests.unit.test_snapshot import NOW, claims_of, ended
from tornado_ds.errors import StorageError
from tornado_ds.feed import Feed
from tornado_ds.snapshot import SessionEvent, SessionSnapshot, Standing
from tornado_ds.storage.memory import MemorySessionStore


class FlakyFeedStore(MemorySessionStore):
    """A store whose rows become visible when the test commits them, and which can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away_for = 0.0
        self.error: Exception = StorageError("the database does not answer")
        self.was_read = asyncio.Event()
        self.rows: dict[int, SessionEvent] = {}
        self.asked: list[tuple[int, Collection[int]]] = []
        self.largest_answer = 0

    def commit(self, *seqs: int, expires_at: int = NOW + 3600) -> None:
        """Make events of these numbers visible; each ends the session `s<number>`."""
        self.rows |= {seq: ended(f"s{seq}", seq=seq, expires_at=expires_at) for seq in seqs}

    async def events(
        self, *, after: int, also: Collection[int] = (), alive_at: int | None = None, limit: int | None = None
    ) -> Sequence[SessionEvent]:
        self.asked.append((after, set(also)))
        self.is_away_for -= 1
        if self.is_away_for >= 0:
            raise self.error
        if self.is_away_for < -3:
            self.was_read.set()
        visible: Iterable[SessionEvent] = (self.rows[seq] for seq in sorted(self.rows))
        answer = [
            event
            for event in visible
            if (event.seq > after or event.seq in also) and (alive_at is None or event.expires_at > alive_at)
        ][:limit]
        self.largest_answer = max(self.largest_answer, len(answer))
        return answer


class EagerFeed(Feed):
    """A feed that does not wait between two looks."""

    INTERVAL_SECONDS = 0


class FeedOfSmallPages(EagerFeed):
    """A feed that asks for three events at once, and for four numbers that are missing."""

    PAGE = 3
    MAX_WATCHED = 4


@pytest.fixture
def store() -> FlakyFeedStore:
    """The store that is followed."""
    return FlakyFeedStore()


@pytest.fixture
def snapshot(clock: ManualClock) -> SessionSnapshot:
    """The snapshot that follows."""
    return SessionSnapshot(clock=clock, stale_for=300)


@pytest.fixture
def feed(store: FlakyFeedStore, snapshot: SessionSnapshot, clock: ManualClock) -> Feed:
    """The feed between them."""
    return EagerFeed(store, snapshot=snapshot, clock=clock)


def known_ends(snapshot: SessionSnapshot) -> set[int]:
    """The numbers of the events that have arrived."""
    return {seq for seq in range(1, 3000) if snapshot.standing(claims_of(f"s{seq}", 1)) is Standing.ENDED}


@pytest.mark.gen_test
async def test_read_makes_the_snapshot_fresh_when_there_are_no_events(feed: Feed, snapshot: SessionSnapshot) -> None:
    """An empty feed was read to its end, too."""
    assert list(await feed.read()) == []

    assert snapshot.is_fresh


@pytest.mark.gen_test
async def test_read_takes_in_what_still_matters_at_a_cold_start(
    feed: Feed, store: FlakyFeedStore, snapshot: SessionSnapshot
) -> None:
    """The first read leaves out what no token can be about any more."""
    store.commit(1, 2, expires_at=NOW)
    store.commit(3, 4)

    await feed.read()

    assert {3, 4} == known_ends(snapshot)
    assert len(store.asked) == 1


@pytest.mark.gen_test
async def test_read_takes_in_only_what_is_new_from_then_on(
    feed: Feed, store: FlakyFeedStore, snapshot: SessionSnapshot
) -> None:
    """No event is read twice once there are no gaps."""
    store.commit(1, 2)
    await feed.read()
    store.commit(3)

    new = await feed.read()

    assert [event.seq for event in new] == [3]
    assert {1, 2, 3} == known_ends(snapshot)
    assert list(await feed.read()) == []
    assert (2, set()) == store.asked[-1]


@pytest.mark.gen_test
@pytest.mark.parametrize("is_cold", [True, False], ids=["at-the-cold-start", "later"])
async def test_read_finds_an_event_when_it_becomes_visible_after_a_later_one(
    feed: Feed, store: FlakyFeedStore, snapshot: SessionSnapshot, is_cold: bool
) -> None:
    """In PostgreSQL the transaction with the lower number may commit last; its event is not missed."""
    store.commit(1)
    if not is_cold:
        await feed.read()
    store.commit(3, 5)
    await feed.read()
    store.commit(4)
    await feed.read()
    store.commit(2)

    await feed.read()

    assert {1, 2, 3, 4, 5} == known_ends(snapshot)


@pytest.mark.gen_test
async def test_read_stops_asking_for_a_gap_when_no_transaction_can_be_that_old(
    feed: Feed, store: FlakyFeedStore, clock: ManualClock
) -> None:
    """A number that was rolled back is not asked for for ever."""
    store.commit(1, 3)
    await feed.read()
    await feed.read()
    assert (2, {2}) == store.asked[-1]

    clock.advance(Feed.OVERLAP_SECONDS)
    await feed.read()
    await feed.read()

    assert (2, set()) == store.asked[-1]


@pytest.mark.gen_test
async def test_read_asks_for_a_bounded_number_of_gaps(feed: Feed, store: FlakyFeedStore) -> None:
    """However many numbers are missing, the query stays one that databases take."""
    await feed.read()
    store.commit(100_000)
    await feed.read()

    await feed.read()

    after, also = store.asked[-1]
    assert after == 99_999
    assert Feed.MAX_GAPS - 1 <= len(also) <= Feed.MAX_GAPS
    assert max(also) == 99_999


@pytest.mark.gen_test
@pytest.mark.parametrize("is_cold", [True, False], ids=["at-the-cold-start", "later"])
async def test_read_asks_for_a_page_at_a_time_when_very_many_sessions_ended(
    store: FlakyFeedStore, snapshot: SessionSnapshot, clock: ManualClock, is_cold: bool
) -> None:
    """No answer is so large that it takes too long, and no event is missed between two of them, not even a late one."""
    feed = FeedOfSmallPages(store, snapshot=snapshot, clock=clock)
    store.commit(1)
    if not is_cold:
        await feed.read()
    store.commit(*range(2, 8), *range(9, 30))
    await feed.read()
    before = known_ends(snapshot)
    store.commit(8)

    late = await feed.read()

    assert {*range(1, 8), *range(9, 30)} == before
    assert [event.seq for event in late] == [8]
    # A page, the newest event before it, and the gap.
    assert store.largest_answer <= 3 + 1 + 1


@pytest.mark.gen_test
async def test_read_asks_for_a_bounded_number_of_gaps_when_each_page_has_some(
    store: FlakyFeedStore, snapshot: SessionSnapshot, clock: ManualClock
) -> None:
    """Where much was pruned while the database was away, the query stays one that databases take."""
    feed = FeedOfSmallPages(store, snapshot=snapshot, clock=clock)
    store.commit(1)
    await feed.read()
    store.commit(*range(2, 60, 2))
    await feed.read()

    await feed.read()

    assert {1, *range(2, 60, 2)} == known_ends(snapshot)
    assert (57, {51, 53, 55, 57}) == store.asked[-1]


@pytest.mark.gen_test
async def test_read_goes_on_from_the_same_place_when_the_database_was_away(
    feed: Feed, store: FlakyFeedStore, snapshot: SessionSnapshot, clock: ManualClock
) -> None:
    """Events of an outage are found after it, and the snapshot does not claim to be fresh meanwhile."""
    store.commit(1)
    await feed.read()
    store.is_away_for = 1
    store.commit(2, 4)
    clock.advance(301)

    with pytest.raises(StorageError):
        await feed.read()

    assert not snapshot.is_fresh
    assert {1} == known_ends(snapshot)

    store.commit(3)
    await feed.read()

    assert snapshot.is_fresh
    assert {1, 2, 3, 4} == known_ends(snapshot)


@pytest.mark.gen_test
async def test_read_starts_anew_when_the_very_first_one_failed(
    feed: Feed, store: FlakyFeedStore, snapshot: SessionSnapshot
) -> None:
    """A cold start during an outage is still a cold start after it."""
    store.is_away_for = 1
    store.commit(1)
    with pytest.raises(StorageError):
        await feed.read()

    await feed.read()

    assert {1} == known_ends(snapshot)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "error",
    [
        pytest.param(StorageError("the database does not answer"), id="outage"),
        pytest.param(KeyError("nobody thought of it"), id="slip-of-ours"),
    ],
)
async def test_run_survives_an_outage_and_says_so_once(
    feed: Feed, store: FlakyFeedStore, snapshot: SessionSnapshot, error: Exception
) -> None:
    """The task that follows the feed dies neither of the database nor of a slip, and does not fill the log."""
    store.error = error
    store.is_away_for = 5
    with capture_logs() as logs:
        task = asyncio.create_task(feed.run())
        await store.was_read.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert [entry["event"] for entry in logs] == ["feed lost", "feed back"]
    assert snapshot.is_fresh
