"""When the parent of several workers goes on, and when it gives up."""

import errno
import json
import os
import signal
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import pytest

from tornado_ds.errors import StorageError, WorkerError
from tornado_ds.workers import MAX_EARLY_ENDS, PAUSES, STOP_SECONDS, Workers

ENOUGH = MAX_EARLY_ENDS + 3


def supervise(folder: Path, servers: int) -> None:
    """Run two workers, of whom the first *servers* serve and all others fail; stop after many have ended."""
    ended: list[int] = []
    pauses: list[float] = []

    def work(orphaned: int) -> None:
        for number in range(servers):
            with suppress(FileExistsError):
                (folder / f"serves-{number}").touch(exist_ok=False)
                os.read(orphaned, 1)
        raise StorageError("the database is away")

    def buried(pid: int) -> None:
        ended.append(pid)
        if len(ended) == ENOUGH:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        Workers(2, work, buried=buried, stopping=lambda: None, pause=pauses.append).run()
        outcome = "stopped"
    except WorkerError:
        outcome = "gave up"
    (folder / "outcome").write_text(json.dumps([outcome, pauses]))


class ToldToStopLate(Workers):
    """Gets its signal when a worker has ended, and before anybody has taken note."""

    def _bury(self, pid: int, status: int) -> None:
        signal.raise_signal(signal.SIGTERM)
        super()._bury(pid, status)


def stop_late(folder: Path) -> None:
    """Run a worker that ends at once."""
    ToldToStopLate(1, lambda orphaned: None, buried=lambda pid: None, stopping=lambda: None).run()
    (folder / "outcome").write_text("stopped")


def test_parent_ends_well_when_the_signal_meets_the_end_of_a_worker(tmp_path: Path) -> None:
    """There is nobody left to pass it on to, and nothing wrong with that."""
    parent = get_context("spawn").Process(target=stop_late, args=(tmp_path,))

    parent.start()
    parent.join(30)

    assert (tmp_path / "outcome").read_text() == "stopped"


def stop_impatiently(folder: Path) -> None:
    """Run a worker that ends at once, with several signals then, and note how long is left until others are killed."""

    def buried(pid: int) -> None:
        signal.raise_signal(signal.SIGTERM)
        # Another time, to tell whether the next signals change it.
        first = signal.alarm(10 * STOP_SECONDS)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.raise_signal(number)
        (folder / "outcome").write_text(json.dumps([first, signal.alarm(0)]))

    Workers(1, lambda orphaned: None, buried=buried, stopping=lambda: None).run()


def test_parent_grants_no_more_time_when_it_is_told_to_stop_again(tmp_path: Path) -> None:
    """Whoever presses Ctrl-C again and again is not to wait the longer for it."""
    parent = get_context("spawn").Process(target=stop_impatiently, args=(tmp_path,))

    parent.start()
    parent.join(30)

    first, after = json.loads((tmp_path / "outcome").read_text())
    assert 0 < first <= STOP_SECONDS < after


@pytest.mark.parametrize(
    ("servers", "expected"), [pytest.param(1, "stopped", id="one-serves"), pytest.param(0, "gave up", id="none-serves")]
)
def test_parent_goes_on_while_somebody_serves(tmp_path: Path, servers: int, expected: str) -> None:
    """Workers that cannot start are tried again, more and more seldom; without any other it is given up."""
    # A process of its own, because the parent waits for every child that there is.
    parent = get_context("spawn").Process(target=supervise, args=(tmp_path, servers))

    parent.start()
    parent.join(30)

    outcome, pauses = json.loads((tmp_path / "outcome").read_text())
    assert outcome == expected
    assert pauses == [*PAUSES, PAUSES[-1]][: len(pauses)]
    assert len(pauses) >= MAX_EARLY_ENDS


def run_short(folder: Path, granted: int) -> None:
    """
    Run two workers on a system that grants *granted* processes, and others after it was asked often enough.

    The first worker to be started serves, the second one ends; stop when a third one has come.
    """
    pauses: list[float] = []
    asked = 0

    def fork() -> int:
        nonlocal asked
        asked += 1
        if granted < asked <= granted + ENOUGH:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return os.fork()

    def work(orphaned: int) -> None:
        if asked == 2:
            return
        if asked > 2:
            os.kill(os.getppid(), signal.SIGTERM)
        os.read(orphaned, 1)

    try:
        Workers(2, work, buried=lambda pid: None, stopping=lambda: None, pause=pauses.append, fork=fork).run()
        outcome = "stopped"
    except WorkerError:
        outcome = "gave up"
    (folder / "outcome").write_text(json.dumps([outcome, asked, len(pauses)]))


@pytest.mark.parametrize(
    ("granted", "expected"),
    [
        # One pause is for the worker that ended, the others are for those that could not be started.
        pytest.param(2, ["stopped", 3 + ENOUGH, 1 + ENOUGH], id="one-serves"),
        pytest.param(0, ["gave up", MAX_EARLY_ENDS, MAX_EARLY_ENDS], id="none-serves"),
    ],
)
def test_parent_goes_on_when_the_system_grants_no_process(tmp_path: Path, granted: int, expected: list[object]) -> None:
    """Those who serve are not left alone for it; it is asked again after a pause, as long as one of them lives."""
    parent = get_context("spawn").Process(target=run_short, args=(tmp_path, granted))

    parent.start()
    parent.join(30)

    assert json.loads((tmp_path / "outcome").read_text()) == expected
