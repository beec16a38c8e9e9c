"""The app behind the login: a folder of files, or the demo page."""

from pathlib import Path
from urllib.parse import urlsplit

from tornado.web import HTTPError, StaticFileHandler

from tornado_ds.handlers.base import BaseHandler, ProtectedHandler
from tornado_ds.resources import client_bundle
from tornado_ds.services import Services
from tornado_ds.settings import Settings


class DemoHandler(ProtectedHandler):
    """`GET /`: the demo page."""

    def set_default_headers(self) -> None:
        self.content_policy = demo_policy(self.application.settings["settings"])
        super().set_default_headers()

    async def get(self) -> None:
        settings = self.services.settings
        self.render_page(
            "app.html",
            title="Demo",
            username=self.claims.username,
            expires_at=self.claims.expires_at * 1000,
            deepstream_url=settings.deepstream_url,
            client_script=settings.client_script or ("/static/deepstream-client.js" if client_bundle() else None),
        )


class OurFileHandler(StaticFileHandler, BaseHandler):  # type: ignore[misc]  # two kinds of initialize
    """`GET /static/...`: styles and scripts of our own pages, open to everybody."""

    def initialize(self, services: Services, path: str, default_filename: str | None = None) -> None:  # type: ignore[override]
        BaseHandler.initialize(self, services)
        StaticFileHandler.initialize(self, path, default_filename)

    def parse_url_path(self, url_path: str) -> str:
        # The file system would raise on it.
        if "\0" in url_path:
            raise HTTPError(404)
        return super().parse_url_path(url_path)

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Cache-Control", "no-cache")


class WebappFileHandler(OurFileHandler, ProtectedHandler):  # type: ignore[misc]
    """`GET /...` with `webapp_dir`: its files, each only with a session."""

    def set_default_headers(self) -> None:
        self.content_policy = webapp_policy(self.application.settings["settings"])
        super().set_default_headers()

    def set_extra_headers(self, path: str) -> None:
        # Tornado would let caches keep what only a session may see.
        self.set_header("Cache-Control", "no-store")

    def compute_etag(self) -> str | None:
        # Tornado reads up to 64 MiB of a file for it, while checks of connections wait; and nothing is stored.
        return None


class ClientScriptHandler(BaseHandler):
    """`GET /static/deepstream-client.js`: deepstream's client from the npm package of this checkout."""

    async def get(self) -> None:
        bundle = client_bundle()
        if bundle is None:
            raise HTTPError(404)
        self.set_header("Content-Type", "text/javascript; charset=utf-8")
        self.set_header("Cache-Control", "no-cache")
        self.write(bundle.read_bytes())


class NoSuchPageHandler(ProtectedHandler):
    """Every other path of the demo: nothing, and that too only with a session."""

    async def get(self) -> None:
        raise HTTPError(404)


def demo_policy(settings: Settings) -> str:
    """Return what the demo page may load: our files, deepstream's script, and the socket."""
    script = "'self'" + (f" {_origin(settings.client_script)}" if settings.client_script else "")
    return (
        f"default-src 'none'; script-src {script}; style-src 'self'; img-src 'self'; "
        f"connect-src 'self' {_origin(settings.deepstream_url)}; form-action 'self'"
    )


def webapp_policy(settings: Settings) -> str:
    """Return what pages of `webapp_dir` may load: what is in the folder, and the socket."""
    return (
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        f"connect-src 'self' {_origin(settings.deepstream_url)}; form-action 'self'"
    )


def folder_of(settings: Settings) -> Path | None:
    """Return the folder to serve at `/`, absolute."""
    return None if settings.webapp_dir is None else settings.webapp_dir.absolute()


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""
