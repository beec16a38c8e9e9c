"""
Figures for Prometheus, right over all workers.

Imported only once a server is about to start: prometheus_client decides at its
import, by `PROMETHEUS_MULTIPROC_DIR`, whether processes add up.
"""

import os
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """The figures of one process; `expose` gives those of all that share a port."""

    CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.checks = Counter(
            "tornado_ds_checks", "Answers to deepstream's webhook, by code", ["code"], registry=registry
        )
        self.logins = Counter("tornado_ds_logins", "Logins, by result", ["result"], registry=registry)
        self.requests = Counter("tornado_ds_requests", "Other HTTP requests, by status", ["status"], registry=registry)
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
        self.loop_lag = Gauge(
            "tornado_ds_loop_lag_seconds",
            "How late the event loop was at its last check, of the worker that was latest",
            registry=registry,
            multiprocess_mode="livemax",
        )
        # Bound once: asking for a label costs more than counting.
        self._checks_by_code: dict[str, Callable[[], None]] = {}

    def count_check(self, code: str) -> None:
        """Count an answer of the webhook; *code* is from the gate's closed list."""
        count = self._checks_by_code.get(code)
        if count is None:
            count = self._checks_by_code[code] = self.checks.labels(code).inc
        count()

    def count_request(self, status: int) -> None:
        """Count an answer to anything else."""
        self.requests.labels(str(status)).inc()

    def expose(self) -> bytes:
        """Return the figures of all workers in Prometheus' text format."""
        if MULTIPROCESS_VARIABLE not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def forget_process(pid: int) -> None:
    """Leave the gauges of a process that has ended out of the sums; what it counted stays."""
    mark_process_dead(pid)  # type: ignore[no-untyped-call]
