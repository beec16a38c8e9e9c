"""Is it alive, is it ready, and what are the figures."""

import asyncio

from tornado_ds.handlers.base import BaseHandler


class HealthHandler(BaseHandler):
    """`GET /healthz`: 200 while the event loop turns."""

    is_probe = True

    async def get(self) -> None:
        self.write_json({"status": "alive"})


class ReadyHandler(BaseHandler):
    """`GET /readyz`: 200 if logins and connections are answered here and now, else 503 with what is not ready."""

    is_probe = True

    async def get(self) -> None:
        obstacles = await self.services.readiness.obstacles()
        age = self.services.snapshot.age
        self.write_json(
            {
                "ready": not obstacles,
                "not_ready": obstacles,
                "feed_age_seconds": None if age is None else round(age, 3),
            },
            status=503 if obstacles else 200,
        )


class MetricsHandler(BaseHandler):
    """`GET /metrics`: figures of all workers for Prometheus."""

    is_probe = True

    async def get(self) -> None:
        metrics = self.services.metrics
        self.set_header("Content-Type", metrics.CONTENT_TYPE)
        metrics.settle()
        self.write(await asyncio.to_thread(metrics.expose))
