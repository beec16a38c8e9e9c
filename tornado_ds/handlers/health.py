"""Is it alive, is it ready, and what are the figures."""

from tornado_ds.handlers.base import BaseHandler


class HealthHandler(BaseHandler):
    """`GET /healthz`: 200 while the event loop turns."""

    is_probe = True

    async def get(self) -> None:
        self.write_json({"status": "alive"})


class ReadyHandler(BaseHandler):
    """`GET /readyz`: 200 if logins and connections are answered, else 503 with what is not ready."""

    is_probe = True

    async def get(self) -> None:
        snapshot = self.services.snapshot
        is_ready = snapshot.is_fresh
        self.write_json(
            {"ready": is_ready, "feed_age_seconds": None if snapshot.age is None else round(snapshot.age, 3)},
            status=200 if is_ready else 503,
        )


class MetricsHandler(BaseHandler):
    """`GET /metrics`: figures of all workers for Prometheus."""

    is_probe = True

    async def get(self) -> None:
        self.set_header("Content-Type", self.services.metrics.CONTENT_TYPE)
        self.write(self.services.metrics.expose())
