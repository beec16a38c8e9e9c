"""Several processes that share the listening sockets, and a parent that looks after them."""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import structlog

from tornado_ds.errors import TornadoDSError, WorkerError

log = structlog.get_logger("workers")

# A worker that ends sooner than this after its start is started again only
# after a pause, and after several of them in a row not at all, unless others serve.
HEALTHY_SECONDS = 10.0
MAX_EARLY_ENDS = 5
# In seconds, after the first of them, the second and so on; the last one from then on.
PAUSES = (0.2, 0.4, 0.8, 1.6, 3.2, 5.0)

# Who is told to stop has this long before it is killed.
STOP_SECONDS = 15

_TO_ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Workers:
    """
    Runs *work* in *count* processes until SIGTERM or SIGINT, and starts those again that end by themselves.

    *work* is called with a file descriptor that becomes readable when the
    parent is gone, so that no worker outlives it unnoticed. SIGHUP is passed on.
    *buried* is called with the process id of each that ended, *stopping* before they
    are told to stop. A process that the system does not grant is asked for again, as
    if it had ended right after its start.
    """

    def __init__(
        self,
        count: int,
        work: Callable[[int], None],
        *,
        buried: Callable[[int], None],
        stopping: Callable[[], None],
        pause: Callable[[float], None] = time.sleep,
        fork: Callable[[], int] = os.fork,
    ) -> None:
        # How many are still to be started.
        self._missing = count
        self._work = work
        self._buried = buried
        self._stopping = stopping
        self._pause = pause
        self._fork = fork
        self._started: dict[int, float] = {}
        self._is_stopping = False
        self._early_ends = 0
        self._trouble_since = 0.0
        self._has_given_up = False

    def run(self) -> None:
        """
        Return when all have ended after a signal.

        Raises:
            WorkerError: They cannot be started, or end right after that, again and again, and nobody serves.
        """
        orphaned, self._parent_lives = os.pipe()
        handlers = {number: signal.signal(number, self._pass_on) for number in _TO_ALL}
        try:
            while self._started or self._is_short:
                self._look_after(orphaned)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            os.close(orphaned)
            os.close(self._parent_lives)
        if self._has_given_up:
            raise WorkerError("the workers cannot be started, or end right after their start; see the log above")

    @property
    def _is_short(self) -> bool:
        return self._missing > 0 and not self._is_stopping

    def _look_after(self, orphaned: int) -> None:
        """Start one if any is missing; see who has ended, and wait for that only if none is."""
        if self._is_short:
            self._try_to_start(orphaned)
        if self._started:
            pid, status = os.waitpid(-1, os.WNOHANG if self._is_short else 0)
            if pid:
                self._bury(pid, status)

    def _try_to_start(self, orphaned: int) -> None:
        try:
            self._start(orphaned)
        except OSError as exc:
            log.error("worker not started", reason=exc.strerror)
            self._note_end(time.monotonic())

    def _start(self, orphaned: int) -> None:
        # A signal that came between the fork and the note of it would miss the new one.
        signal.pthread_sigmask(signal.SIG_BLOCK, _TO_ALL)
        try:
            # Nor would one be told to stop that is started after the others were.
            if self._is_stopping:
                return
            pid = self._fork()
            if pid == 0:
                self._become_worker(orphaned)
            self._started[pid] = time.monotonic()
            self._missing -= 1
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _TO_ALL)
        log.info("worker started", pid=pid)

    def _become_worker(self, orphaned: int) -> NoReturn:
        code = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            # All that it asks for to be read again is still to be read.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _TO_ALL)
            os.close(self._parent_lives)
            structlog.contextvars.bind_contextvars(worker=os.getpid())
            self._work(orphaned)
            code = 0
        except TornadoDSError as exc:
            log.error("worker failed", reason=str(exc))
        except BaseException:
            log.exception("worker failed")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # Not sys.exit: what the parent wanted to do after the fork is not the worker's.
            os._exit(code)

    def _bury(self, pid: int, status: int) -> None:
        started = self._started.pop(pid, None)
        self._buried(pid)
        if started is None or self._is_stopping:
            return
        log.error("worker ended", pid=pid, exit_code=os.waitstatus_to_exitcode(status))
        self._missing += 1
        self._note_end(started)

    def _note_end(self, started: float) -> None:
        now = time.monotonic()
        if now - started > HEALTHY_SECONDS:
            self._early_ends = 0
            return
        if not self._early_ends:
            self._trouble_since = now
        self._early_ends += 1
        self._pause(PAUSES[min(self._early_ends, len(PAUSES)) - 1])
        if self._early_ends >= MAX_EARLY_ENDS and not self._somebody_serves:
            self._has_given_up = True
            self._pass_on(signal.SIGTERM, None)

    @property
    def _somebody_serves(self) -> bool:
        """
        True if a worker lives that was there before the others began to end.

        It checks connections from memory while the database is away, and no new worker can start without one.
        """
        return any(started < self._trouble_since for started in self._started.values())

    def _pass_on(self, number: int, _frame: object) -> None:
        if number != signal.SIGHUP and not self._is_stopping:
            self._is_stopping = True
            self._stopping()
            # Once: whoever sends more signals does not wait longer.
            if hasattr(signal, "alarm"):
                signal.signal(signal.SIGALRM, self._kill)
                signal.alarm(STOP_SECONDS)
        self._send(signal.SIGTERM if number == signal.SIGINT else number)

    def _kill(self, _number: int, _frame: object) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        for pid in self._started:
            # It may have ended a moment ago, and wait to be buried.
            with suppress(ProcessLookupError):
                os.kill(pid, number)
