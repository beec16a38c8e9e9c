"""
Figures for Prometheus, right over all workers.

Imported only once a server is about to start: prometheus_client decides at its
import, by `PROMETHEUS_MULTIPROC_DIR`, whether processes add up.
"""

import os
import platform
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from tornado_ds import __version__
from tornado_ds.errors import AuthenticationError, OverloadedError, StorageError, ThrottledError

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

# How a login that fails is counted; everything else is `failed`.
_LOGIN_RESULTS: dict[type[Exception], str] = {
    AuthenticationError: "invalid_credentials",
    ThrottledError: "throttled",
    OverloadedError: "overloaded",
    StorageError: "unavailable",
}


class Metrics:
    """The figures of one process; `expose` gives those of all that share a port."""

    CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        # Several processes have no common moment of creation, so one shall not show it either.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self._registry = CollectorRegistry()
        self.checks = Counter(
            "tornado_ds_checks", "Answers to deepstream's webhook, by code", ["code"], registry=registry
        )
        self.logins = Counter("tornado_ds_logins", "Logins, by result", ["result"], registry=registry)
        self.requests = Counter("tornado_ds_requests", "Other HTTP requests, by status", ["status"], registry=registry)
        self.sessions_opened = Counter(
            "tornado_ds_sessions_opened", "Sessions that this server has opened", registry=registry
        )
        self.sessions_ended = Counter(
            "tornado_ds_sessions_ended", "Sessions that this server has ended, by reason", ["reason"], registry=registry
        )
        self.sessions_live = Gauge(
            "tornado_ds_sessions_live",
            "Sessions that live in the database, counted about once a minute",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.hashing_seconds = Histogram(
            "tornado_ds_hashing_seconds",
            "How long the password of a login waited for its hashing, and was hashed",
            registry=registry,
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )
        self.hashing = Gauge(
            "tornado_ds_hashing_pending",
            "Passwords that are being hashed or wait for it",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.feed_age = Gauge(
            "tornado_ds_feed_age_seconds",
            "Time since the change feed was last read, of the worker that is furthest behind",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.followers = Gauge(
            "tornado_ds_feed_followers",
            "deepstream nodes that follow the feed",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.connections = Gauge(
            "tornado_ds_connections",
            "Open connections, by listener",
            ["listener"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.loop_lag = Histogram(
            "tornado_ds_loop_lag_seconds",
            "How late the event loop was when it was checked, several times a second",
            registry=registry,
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
        )
        self.workers = Gauge(
            "tornado_ds_workers", "Processes that serve", registry=registry, multiprocess_mode="livesum"
        )
        self.build = Gauge(
            "tornado_ds_build_info",
            "Always 1; the labels say what runs",
            ["version", "python"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.build.labels(__version__, platform.python_version()).set(1)
        # There before the first of them: Prometheus sees no rise in a figure that begins at 1.
        for result in ("ok", *_LOGIN_RESULTS.values(), "failed"):
            self.logins.labels(result)
        for code in ("ok", "unavailable"):
            self.checks.labels(code)
        # Counters that several processes share are too slow to be asked for every connection.
        self._new_checks: dict[str, int] = defaultdict(int)

    def count_check(self, code: str) -> None:
        """Count an answer of the webhook; *code* is from the gate's closed list. `settle` makes it public."""
        self._new_checks[code] += 1

    def settle(self) -> None:
        """Make public what was counted; to be called every moment, and at the end."""
        counted, self._new_checks = self._new_checks, defaultdict(int)
        for code, number in counted.items():
            self.checks.labels(code).inc(number)

    def count_request(self, status: int) -> None:
        """Count an answer to anything else."""
        self.requests.labels(str(status)).inc()

    @contextmanager
    def login(self) -> Iterator[None]:
        """One login, counted by how the body ends; one that nobody waits for any more is not counted."""
        try:
            yield
        except Exception as exc:
            self.logins.labels(_LOGIN_RESULTS.get(type(exc), "failed")).inc()
            raise
        self.logins.labels("ok").inc()

    def expose(self) -> bytes:
        """
        Return the figures of all workers, as far as they were settled, in Prometheus' text format.

        For a thread of its own: there are files of each worker to read, also of those that have
        ended. What counts meanwhile is guarded by prometheus_client, or in the files, as for others.
        """
        if MULTIPROCESS_VARIABLE not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def forget_process(pid: int) -> None:
    """Leave the gauges of a process that has ended out of the sums; what it counted stays."""
    mark_process_dead(pid)  # type: ignore[no-untyped-call]
